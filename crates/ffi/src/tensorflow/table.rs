//! The functions of `tensorflow/c/c_api.h`, `tf_tensor.h`, `tf_status.h` and `tf_tstring.h` that are
//! called, declared by hand and looked up by name. All but those marked `maybe` have been there since
//! TensorFlow 2.5.

use std::ffi::{c_char, c_int, c_void};

use libloading::os::unix::Library;

/// Types that C code alone looks into.
macro_rules! opaque {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {$(
        $(#[$doc])*
        #[repr(C)]
        pub(super) struct $name { _private: [u8; 0] }
    )*};
}

opaque! {
    /// `TF_Status`.
    Status,
    /// `TF_SessionOptions`.
    SessionOptions,
    /// `TF_Graph`.
    Graph,
    /// `TF_ImportGraphDefOptions`.
    ImportOptions,
    /// `TF_Session`.
    Session,
    /// `TF_Operation`.
    Operation,
    /// `TF_Tensor`.
    Tensor,
    /// `TF_Library`.
    LibraryHandle,
}

/// `TF_Buffer`: bytes and how to free them.
#[repr(C)]
pub(super) struct Buffer {
    pub(super) data: *const c_void,
    pub(super) length: usize,
    pub(super) data_deallocator: Option<unsafe extern "C" fn(*mut c_void, usize)>,
}

impl Buffer {
    /// A view of bytes that the caller keeps for as long as C code may look at it.
    pub(super) fn view(bytes: &[u8]) -> Buffer {
        Buffer { data: bytes.as_ptr().cast(), length: bytes.len(), data_deallocator: None }
    }
}

/// `TF_Output`: one output of an operation.
#[repr(C)]
#[derive(Clone, Copy)]
pub(super) struct Output {
    pub(super) operation: *mut Operation,
    pub(super) index: c_int,
}

/// `TF_TString`: 24 bytes that C code alone reads and writes.
#[repr(C)]
#[derive(Clone, Copy)]
pub(super) struct TString {
    pub(super) words: [u64; 3],
}

/// Frees the memory of a tensor made by `TF_NewTensor`.
pub(super) type Deallocator =
    unsafe extern "C" fn(data: *mut c_void, length: usize, argument: *mut c_void);

macro_rules! table {
    (
        $($field:ident = $symbol:literal: fn($($argument:ty),* $(,)?) $(-> $result:ty)?;)*
        ; maybe: $($absent:ident = $absent_symbol:literal: fn($($absent_argument:ty),* $(,)?);)*
    ) => {
        /// Every function that is called.
        pub(super) struct Table {
            $(pub(super) $field: unsafe extern "C" fn($($argument),*) $(-> $result)?,)*
            $(pub(super) $absent: Option<unsafe extern "C" fn($($absent_argument),*)>,)*
        }

        impl Table {
            /// Looks every function up.
            ///
            /// # Errors
            /// The name of the first that is missing.
            ///
            /// # Safety
            /// The library must be TensorFlow's, whose functions have these types, and must never
            /// be closed.
            pub(super) unsafe fn of(library: &Library) -> Result<Table, &'static str> {
                Ok(Table {
                    $($field: {
                        // SAFETY: the caller vouches that the symbol is TensorFlow's function of
                        // this type and outlives every call.
                        let symbol = unsafe {
                            library.get::<unsafe extern "C" fn($($argument),*) $(-> $result)?>(
                                $symbol.as_bytes(),
                            )
                        };
                        *symbol.map_err(|_| $symbol)?
                    },)*
                    $($absent: {
                        // SAFETY: as above.
                        let symbol = unsafe {
                            library.get::<unsafe extern "C" fn($($absent_argument),*)>(
                                $absent_symbol.as_bytes(),
                            )
                        };
                        symbol.ok().map(|symbol| *symbol)
                    },)*
                })
            }
        }
    };
}

table! {
    version = "TF_Version": fn() -> *const c_char;
    new_status = "TF_NewStatus": fn() -> *mut Status;
    delete_status = "TF_DeleteStatus": fn(*mut Status);
    code = "TF_GetCode": fn(*const Status) -> c_int;
    message = "TF_Message": fn(*const Status) -> *const c_char;
    new_session_options = "TF_NewSessionOptions": fn() -> *mut SessionOptions;
    delete_session_options = "TF_DeleteSessionOptions": fn(*mut SessionOptions);
    set_config = "TF_SetConfig": fn(*mut SessionOptions, *const c_void, usize, *mut Status);
    new_graph = "TF_NewGraph": fn() -> *mut Graph;
    delete_graph = "TF_DeleteGraph": fn(*mut Graph);
    load_saved_model = "TF_LoadSessionFromSavedModel": fn(
        *const SessionOptions, *const Buffer, *const c_char, *const *const c_char, c_int,
        *mut Graph, *mut Buffer, *mut Status,
    ) -> *mut Session;
    new_import_options = "TF_NewImportGraphDefOptions": fn() -> *mut ImportOptions;
    delete_import_options = "TF_DeleteImportGraphDefOptions": fn(*mut ImportOptions);
    import_graph = "TF_GraphImportGraphDef": fn(
        *mut Graph, *const Buffer, *const ImportOptions, *mut Status,
    );
    new_session = "TF_NewSession": fn(
        *mut Graph, *const SessionOptions, *mut Status,
    ) -> *mut Session;
    all_operators = "TF_GetAllOpList": fn() -> *mut Buffer;
    delete_buffer = "TF_DeleteBuffer": fn(*mut Buffer);
    close_session = "TF_CloseSession": fn(*mut Session, *mut Status);
    delete_session = "TF_DeleteSession": fn(*mut Session, *mut Status);
    session_run = "TF_SessionRun": fn(
        *mut Session, *const Buffer,
        *const Output, *const *mut Tensor, c_int,
        *const Output, *mut *mut Tensor, c_int,
        *const *const Operation, c_int,
        *mut Buffer, *mut Status,
    );
    operation_by_name = "TF_GraphOperationByName": fn(*mut Graph, *const c_char) -> *mut Operation;
    operation_outputs = "TF_OperationNumOutputs": fn(*mut Operation) -> c_int;
    output_dtype = "TF_OperationOutputType": fn(Output) -> c_int;
    new_tensor = "TF_NewTensor": fn(
        c_int, *const i64, c_int, *mut c_void, usize, Deallocator, *mut c_void,
    ) -> *mut Tensor;
    delete_tensor = "TF_DeleteTensor": fn(*mut Tensor);
    tensor_dtype = "TF_TensorType": fn(*const Tensor) -> c_int;
    tensor_rank = "TF_NumDims": fn(*const Tensor) -> c_int;
    tensor_dim = "TF_Dim": fn(*const Tensor, c_int) -> i64;
    tensor_bytes = "TF_TensorByteSize": fn(*const Tensor) -> usize;
    tensor_data = "TF_TensorData": fn(*const Tensor) -> *mut c_void;
    dtype_bytes = "TF_DataTypeSize": fn(c_int) -> usize;
    string_init = "TF_StringInit": fn(*mut TString);
    string_copy = "TF_StringCopy": fn(*mut TString, *const c_char, usize);
    string_pointer = "TF_StringGetDataPointer": fn(*const TString) -> *const c_char;
    string_bytes = "TF_StringGetSize": fn(*const TString) -> usize;
    string_free = "TF_StringDealloc": fn(*mut TString);
    load_library = "TF_LoadLibrary": fn(*const c_char, *mut Status) -> *mut LibraryHandle;
    delete_library_handle = "TF_DeleteLibraryHandle": fn(*mut LibraryHandle);
    // Of the part of the interface that is for TensorFlow's own Python; older releases lack it.
    ; maybe: require_shape_functions = "TF_SetRequireShapeInferenceFns": fn(*mut Graph, bool);
}

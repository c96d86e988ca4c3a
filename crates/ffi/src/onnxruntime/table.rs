//! The functions that are called, and the C types that they take.
//!
//! ONNX Runtime exports one function, which gives a struct of function pointers. The struct of a
//! version is never changed: later versions only add at its end. So a function is a position, and the
//! version that brought the last one used here is all that is asked of a library.

use std::ffi::{c_char, c_int, c_void};

/// An opaque object of ONNX Runtime's.
macro_rules! opaque {
    ($($name:ident),*) => {
        $(#[repr(C)] pub(super) struct $name { _private: [u8; 0] })*
    };
}

opaque!(
    Status,
    Env,
    SessionOptions,
    Session,
    RunOptions,
    Value,
    TypeAndShape,
    MemoryInfo,
    Allocator,
    ArenaCfg,
    PackedWeights
);

/// The version of the API that has every function of [`Table`], and its first release.
pub(super) const API_VERSION: u32 = 15;
pub(super) const FIRST_RELEASE: &str = "1.15";

/// `OrtApiBase`.
#[repr(C)]
pub(super) struct ApiBase {
    pub(super) api: unsafe extern "C" fn(u32) -> *const *const c_void,
    pub(super) version: unsafe extern "C" fn() -> *const c_char,
}

/// The one function that the library exports.
pub(super) type GetApiBase = unsafe extern "C" fn() -> *const ApiBase;

macro_rules! table {
    ($($position:literal $field:ident: fn($($argument:ty),* $(,)?) $(-> $result:ty)?;)*) => {
        /// Every function that is called.
        pub(super) struct Table {
            $(pub(super) $field: unsafe extern "C" fn($($argument),*) $(-> $result)?,)*
        }

        impl Table {
            /// Reads the functions out of `OrtApi`; `None` when one is missing.
            ///
            /// # Safety
            /// `api` must be what `GetApi` gave for [`API_VERSION`], and its library must never be
            /// closed.
            pub(super) unsafe fn of(api: *const *const c_void) -> Option<Table> {
                Some(Table {
                    $($field: {
                        // SAFETY: the struct of this version has a function at each position here,
                        // by the caller's word.
                        let function: *const c_void = unsafe { *api.add($position) };
                        if function.is_null() {
                            return None;
                        }
                        // SAFETY: the function at this position has this type in every version that
                        // has it.
                        unsafe {
                            std::mem::transmute::<
                                *const c_void,
                                unsafe extern "C" fn($($argument),*) $(-> $result)?,
                            >(function)
                        }
                    },)*
                })
            }
        }
    };
}

table! {
    1 error_code: fn(*const Status) -> c_int;
    2 error_message: fn(*const Status) -> *const c_char;
    3 create_env: fn(c_int, *const c_char, *mut *mut Env) -> *mut Status;
    6 disable_telemetry: fn(*const Env) -> *mut Status;
    9 run: fn(
        *mut Session, *const RunOptions,
        *const *const c_char, *const *const Value, usize,
        *const *const c_char, usize, *mut *mut Value,
    ) -> *mut Status;
    10 create_session_options: fn(*mut *mut SessionOptions) -> *mut Status;
    17 disable_memory_pattern: fn(*mut SessionOptions) -> *mut Status;
    24 set_intra_op_threads: fn(*mut SessionOptions, c_int) -> *mut Status;
    25 set_inter_op_threads: fn(*mut SessionOptions, c_int) -> *mut Status;
    39 create_run_options: fn(*mut *mut RunOptions) -> *mut Status;
    46 set_terminate: fn(*mut RunOptions) -> *mut Status;
    48 create_tensor: fn(
        *mut Allocator, *const i64, usize, c_int, *mut *mut Value,
    ) -> *mut Status;
    49 create_tensor_over: fn(
        *const MemoryInfo, *mut c_void, usize, *const i64, usize, c_int, *mut *mut Value,
    ) -> *mut Status;
    50 is_tensor: fn(*const Value, *mut c_int) -> *mut Status;
    51 tensor_data: fn(*mut Value, *mut *mut c_void) -> *mut Status;
    53 strings_length: fn(*const Value, *mut usize) -> *mut Status;
    54 strings_content: fn(
        *const Value, *mut c_void, usize, *mut usize, usize,
    ) -> *mut Status;
    60 element_type: fn(*const TypeAndShape, *mut c_int) -> *mut Status;
    61 dims_count: fn(*const TypeAndShape, *mut usize) -> *mut Status;
    62 dims: fn(*const TypeAndShape, *mut i64, usize) -> *mut Status;
    65 type_and_shape: fn(*const Value, *mut *mut TypeAndShape) -> *mut Status;
    69 create_memory_info: fn(c_int, c_int, *mut *mut MemoryInfo) -> *mut Status;
    78 default_allocator: fn(*mut *mut Allocator) -> *mut Status;
    93 release_status: fn(*mut Status);
    95 release_session: fn(*mut Session);
    96 release_value: fn(*mut Value);
    97 release_run_options: fn(*mut RunOptions);
    99 release_type_and_shape: fn(*mut TypeAndShape);
    100 release_session_options: fn(*mut SessionOptions);
    130 add_config_entry: fn(*mut SessionOptions, *const c_char, *const c_char) -> *mut Status;
    144 register_allocator: fn(*mut Env, *const MemoryInfo, *const ArenaCfg) -> *mut Status;
    150 add_initializer: fn(*mut SessionOptions, *const c_char, *const Value) -> *mut Status;
    164 create_arena_cfg: fn(
        *const *const c_char, *const usize, usize, *mut *mut ArenaCfg,
    ) -> *mut Status;
    166 create_packed_weights: fn(*mut *mut PackedWeights) -> *mut Status;
    167 release_packed_weights: fn(*mut PackedWeights);
    169 create_session_with_packed_weights: fn(
        *const Env, *const c_void, usize, *const SessionOptions, *mut PackedWeights,
        *mut *mut Session,
    ) -> *mut Status;
    210 add_external_initializers: fn(
        *mut SessionOptions, *const *const c_char, *const *const Value, usize,
    ) -> *mut Status;
    252 string_buffer: fn(*mut Value, usize, usize, *mut *mut c_char) -> *mut Status;
}

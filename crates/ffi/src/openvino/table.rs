//! The functions that are called, and the C types that they take.

use std::ffi::{c_char, c_int, c_void};

use libloading::os::unix::Library;

/// An opaque object of OpenVINO's.
macro_rules! opaque {
    ($($name:ident),*) => {
        $(#[repr(C)] pub(super) struct $name { _private: [u8; 0] })*
    };
}

opaque!(Core, Model, Compiled, Port, Request, Tensor);

/// `ov_status_e`.
pub(super) type Status = c_int;
pub(super) const OK: Status = 0;
pub(super) const RESULT_NOT_READY: Status = -9;

/// `ov_dimension_t`, and `ov_rank_t`: open when the two differ.
#[repr(C)]
#[derive(Clone, Copy)]
pub(super) struct Dimension {
    pub(super) min: i64,
    pub(super) max: i64,
}

/// `ov_partial_shape_t`.
#[repr(C)]
pub(super) struct PartialShape {
    pub(super) rank: Dimension,
    pub(super) dims: *mut Dimension,
}

/// `ov_shape_t`.
#[repr(C)]
#[derive(Clone, Copy)]
pub(super) struct Shape {
    pub(super) rank: i64,
    pub(super) dims: *mut i64,
}

macro_rules! table {
    ($($symbol:literal $field:ident: fn($($argument:ty),* $(; $more:tt)?) $(-> $result:ty)?;)*) => {
        /// Every function that is called.
        pub(super) struct Table {
            $(pub(super) $field: unsafe extern "C" fn($($argument),* $(, $more)?) $(-> $result)?,)*
        }

        impl Table {
            /// Looks the functions up; the name of one that is missing.
            ///
            /// # Safety
            /// `library` must be OpenVINO's, and must never be closed.
            pub(super) unsafe fn of(library: &Library) -> Result<Table, &'static str> {
                Ok(Table {
                    $($field: {
                        // SAFETY: the function of this name has this type in every release since
                        // the API of 2022; the caller says whose library it is.
                        let found = unsafe {
                            library.get::<unsafe extern "C" fn(
                                $($argument),* $(, $more)?
                            ) $(-> $result)?>($symbol.as_bytes())
                        };
                        *found.map_err(|_| $symbol)?
                    },)*
                })
            }
        }
    };
}

table! {
    "ov_get_last_err_msg" last_message: fn() -> *const c_char;
    "ov_get_error_info" error_info: fn(Status) -> *const c_char;
    "ov_free" free: fn(*const c_char);
    "ov_core_create" create_core: fn(*mut *mut Core) -> Status;
    "ov_core_read_model_from_memory_buffer" read_model: fn(
        *const Core, *const c_char, usize, *const Tensor, *mut *mut Model
    ) -> Status;
    "ov_core_read_model" read_file: fn(
        *const Core, *const c_char, *const c_char, *mut *mut Model
    ) -> Status;
    "ov_core_compile_model" compile_model: fn(
        *const Core, *const Model, *const c_char, usize, *mut *mut Compiled; ...
    ) -> Status;
    "ov_model_free" free_model: fn(*mut Model);
    "ov_model_reshape_by_port_indexes" reshape: fn(
        *const Model, *const usize, *const PartialShape, usize
    ) -> Status;
    "ov_model_inputs_size" inputs: fn(*const Model, *mut usize) -> Status;
    "ov_model_outputs_size" outputs: fn(*const Model, *mut usize) -> Status;
    "ov_model_const_input_by_index" input: fn(*const Model, usize, *mut *mut Port) -> Status;
    "ov_model_const_output_by_index" output: fn(*const Model, usize, *mut *mut Port) -> Status;
    "ov_port_get_any_name" port_name: fn(*const Port, *mut *mut c_char) -> Status;
    "ov_port_get_element_type" port_element: fn(*const Port, *mut u32) -> Status;
    "ov_port_get_partial_shape" port_shape: fn(*const Port, *mut PartialShape) -> Status;
    "ov_output_const_port_free" free_port: fn(*mut Port);
    "ov_partial_shape_free" free_partial_shape: fn(*mut PartialShape);
    "ov_compiled_model_free" free_compiled: fn(*mut Compiled);
    "ov_compiled_model_create_infer_request" create_request: fn(
        *const Compiled, *mut *mut Request
    ) -> Status;
    "ov_infer_request_free" free_request: fn(*mut Request);
    "ov_infer_request_set_input_tensor_by_index" set_input: fn(
        *mut Request, usize, *const Tensor
    ) -> Status;
    "ov_infer_request_get_output_tensor_by_index" get_output: fn(
        *const Request, usize, *mut *mut Tensor
    ) -> Status;
    "ov_infer_request_start_async" start: fn(*mut Request) -> Status;
    "ov_infer_request_wait" wait: fn(*mut Request) -> Status;
    "ov_infer_request_wait_for" wait_for: fn(*mut Request, i64) -> Status;
    "ov_infer_request_cancel" cancel: fn(*mut Request) -> Status;
    "ov_shape_free" free_shape: fn(*mut Shape) -> Status;
    "ov_tensor_create" create_tensor: fn(u32, Shape, *mut *mut Tensor) -> Status;
    "ov_tensor_create_from_host_ptr" create_tensor_over: fn(
        u32, Shape, *mut c_void, *mut *mut Tensor
    ) -> Status;
    "ov_tensor_get_shape" tensor_shape: fn(*const Tensor, *mut Shape) -> Status;
    "ov_tensor_get_element_type" tensor_element: fn(*const Tensor, *mut u32) -> Status;
    "ov_tensor_get_byte_size" tensor_bytes: fn(*const Tensor, *mut usize) -> Status;
    "ov_tensor_data" tensor_data: fn(*const Tensor, *mut *mut c_void) -> Status;
    "ov_tensor_free" free_tensor: fn(*mut Tensor);
}

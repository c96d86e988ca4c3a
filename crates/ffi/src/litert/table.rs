//! The functions that are called, and the C types that they take.

use std::ffi::{c_char, c_int, c_void};

use libloading::os::unix::Library;

/// An opaque object of LiteRT's.
macro_rules! opaque {
    ($($name:ident),*) => {
        $(#[repr(C)] pub(super) struct $name { _private: [u8; 0] })*
    };
}

opaque!(Environment, Model, Options, OpaqueOptions, Compiled, Signature, Buffer);

/// The most dimensions that a [`Layout`] has room for.
pub(super) const RANK_MAX: usize = 8;

/// `LiteRtLayout`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub(super) struct Layout {
    /// Seven bits of rank, one bit for strides.
    bits: u32,
    dimensions: [i32; RANK_MAX],
    strides: [u32; RANK_MAX],
}

impl Layout {
    /// Without strides; `None` for too many dimensions.
    pub(super) fn of(dims: &[i32]) -> Option<Layout> {
        let mut layout = Layout { bits: u32::try_from(dims.len()).ok()?, ..Layout::default() };
        layout.dimensions.get_mut(..dims.len())?.copy_from_slice(dims);
        Some(layout)
    }

    /// The sizes; `None` for more of them than there is room for.
    pub(super) fn dims(&self) -> Option<&[i32]> {
        self.dimensions.get(..(self.bits & 0x7f) as usize)
    }
}

/// `LiteRtRankedTensorType`.
#[repr(C)]
#[derive(Clone, Copy)]
pub(super) struct TensorType {
    pub(super) element: c_int,
    pub(super) layout: Layout,
}

/// `LiteRtEnvOption` with a value that is an integer.
#[repr(C)]
pub(super) struct EnvironmentOption {
    pub(super) tag: c_int,
    pub(super) value: Any,
}

/// `LiteRtAny` that is an integer.
#[repr(C)]
pub(super) struct Any {
    kind: c_int,
    value: i64,
}

impl Any {
    /// `kLiteRtAnyTypeInt`.
    pub(super) fn integer(value: i64) -> Any {
        Any { kind: 2, value }
    }
}

// The C headers assert these sizes for 64-bit processors.
const _: () = {
    assert!(size_of::<Layout>() == 68);
    assert!(size_of::<TensorType>() == 72);
    assert!(size_of::<EnvironmentOption>() == 24);
};

/// Frees what an opaque option holds.
pub(super) type Destructor = unsafe extern "C" fn(*mut c_void);

/// Asked between operators whether a run is to end.
pub(super) type Cancelled = unsafe extern "C" fn(*mut c_void) -> bool;

macro_rules! table {
    ($($field:ident = $symbol:literal: fn($($argument:ty),* $(,)?) $(-> $result:ty)?;)*) => {
        /// Every function that is called.
        pub(super) struct Table {
            $(pub(super) $field: unsafe extern "C" fn($($argument),*) $(-> $result)?,)*
        }

        impl Table {
            /// Looks every function up.
            ///
            /// # Errors
            /// The name of the first that is missing.
            ///
            /// # Safety
            /// The library must be LiteRT's, whose functions have these types, and must never be
            /// closed.
            pub(super) unsafe fn of(library: &Library) -> Result<Table, &'static str> {
                Ok(Table {
                    $($field: {
                        // SAFETY: the caller vouches that the symbol is LiteRT's function of this
                        // type and outlives every call.
                        let symbol = unsafe {
                            library.get::<unsafe extern "C" fn($($argument),*) $(-> $result)?>(
                                $symbol.as_bytes(),
                            )
                        };
                        *symbol.map_err(|_| $symbol)?
                    },)*
                })
            }
        }
    };
}

table! {
    create_environment = "LiteRtCreateEnvironment": fn(
        c_int, *const EnvironmentOption, *mut *mut Environment,
    ) -> c_int;
    create_model = "LiteRtCreateModelFromBuffer": fn(
        *mut Environment, *const c_void, usize, *mut *mut Model,
    ) -> c_int;
    destroy_model = "LiteRtDestroyModel": fn(*mut Model);
    signature_count = "LiteRtGetNumModelSignatures": fn(*mut Model, *mut usize) -> c_int;
    signature = "LiteRtGetModelSignature": fn(*mut Model, usize, *mut *mut Signature) -> c_int;
    signature_key = "LiteRtGetSignatureKey": fn(*mut Signature, *mut *const c_char) -> c_int;
    input_count = "LiteRtGetNumSignatureInputs": fn(*mut Signature, *mut usize) -> c_int;
    output_count = "LiteRtGetNumSignatureOutputs": fn(*mut Signature, *mut usize) -> c_int;
    create_options = "LiteRtCreateOptions": fn(*mut *mut Options) -> c_int;
    destroy_options = "LiteRtDestroyOptions": fn(*mut Options);
    set_accelerators = "LiteRtSetOptionsHardwareAccelerators": fn(*mut Options, c_int) -> c_int;
    create_opaque = "LiteRtCreateOpaqueOptions": fn(
        *const c_char, *mut c_void, Destructor, *mut *mut OpaqueOptions,
    ) -> c_int;
    destroy_opaque = "LiteRtDestroyOpaqueOptions": fn(*mut OpaqueOptions);
    add_opaque = "LiteRtAddOpaqueOptions": fn(*mut Options, *mut OpaqueOptions) -> c_int;
    create_compiled = "LiteRtCreateCompiledModel": fn(
        *mut Environment, *mut Model, *mut Options, *mut *mut Compiled,
    ) -> c_int;
    destroy_compiled = "LiteRtDestroyCompiledModel": fn(*mut Compiled);
    // Not called: LiteRT before 2.2 lacks it, and has other arguments for functions of this table.
    _environment_of = "LiteRtGetCompiledModelEnvironment": fn(
        *mut Compiled, *mut *mut Environment,
    ) -> c_int;
    set_cancellation = "LiteRtSetCompiledModelCancellationFunction": fn(
        *mut Compiled, *mut c_void, Cancelled,
    ) -> c_int;
    resize = "LiteRtCompiledModelResizeInputTensorNonStrict": fn(
        *mut Compiled, usize, usize, *const c_int, usize,
    ) -> c_int;
    output_layouts = "LiteRtGetCompiledModelOutputTensorLayouts": fn(
        *mut Compiled, usize, usize, *mut Layout, bool,
    ) -> c_int;
    create_buffer = "LiteRtCreateTensorBufferFromHostMemory": fn(
        *const TensorType, *mut c_void, usize, Option<Destructor>, *mut *mut Buffer,
    ) -> c_int;
    destroy_buffer = "LiteRtDestroyTensorBuffer": fn(*mut Buffer);
    run = "LiteRtRunCompiledModel": fn(
        *mut Compiled, usize, usize, *mut *mut Buffer, usize, *mut *mut Buffer,
    ) -> c_int;
    clear_errors = "LiteRtCompiledModelClearErrors": fn(*mut Compiled) -> c_int;
    error_messages = "LiteRtCompiledModelGetErrorMessages": fn(
        *mut Compiled, *mut *mut c_char,
    ) -> c_int;
}

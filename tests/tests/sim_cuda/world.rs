//! A simulated node and its driver library, loaded; every public function of it as a method.
//!
//! # Safety
//! The library's functions have the signatures of the table, which both sides are made from. Pointers that tests
//! hand over are to their own locals, or what the library handed out.

use core::ffi::*;
use std::mem::ManuallyDrop;

use libloading::Library;
use vgpu_cuda_sys::cuda::*;
use vgpu_cuda_sys::{In, Out};
use vgpu_tests::node::Node;

/// The library of one node.
pub(crate) struct Cuda {
    /// Never closed: it has a thread of its own.
    library: ManuallyDrop<Library>,
    pub(crate) node: Node,
}

macro_rules! methods {
    ($({ $slot:literal $class:ident $name:ident [$($body:tt)*] ($($arg:ident : $type:ty),*) -> CUresult })*) => {
        #[allow(dead_code, reason = "one method a function, whether a test calls it or not")]
        impl Cuda {
            $(
                pub(crate) fn $name(&self, $($arg: $type),*) -> CUresult {
                    let name = concat!(stringify!($name), "\0").as_bytes();
                    // SAFETY: the symbol has this signature, see the file's head.
                    let function = unsafe { self.library.get::<unsafe extern "C" fn($($type),*) -> CUresult>(name) };
                    let function = function.unwrap();
                    // SAFETY: the arguments are the test's, see the file's head.
                    unsafe { function($($arg),*) }
                }
            )*
        }

        impl Cuda {
            /// Calls every function with nothing but zeroes, and hands over its name and answer.
            pub(crate) fn call_all_with_zeroes(&self, mut answer: impl FnMut(&str, CUresult)) {
                $( answer(stringify!($name), self.$name($(zeroed::<$type>()),*)); )*
            }
        }

        /// The names of the table.
        pub(crate) const NAMES: &[&str] = &[$(stringify!($name)),*];
    };
}
vgpu_cuda_sys::cuda_table!(methods);

impl Cuda {
    /// A node by its description, with the library loaded and nothing called.
    pub(crate) fn load(toml: &str) -> Self {
        let node = Node::described(toml);
        let path = node.root().join("usr/lib/x86_64-linux-gnu/libcuda.so.1");
        // SAFETY: the library has no constructors of its own.
        let library = unsafe { Library::new(path) }.unwrap();
        Self {
            library: ManuallyDrop::new(library),
            node,
        }
    }

    /// The default node, initialised, with device 0's primary context current.
    pub(crate) fn ready() -> Self {
        Self::ready_on("")
    }

    /// As [`Cuda::ready`], on another node.
    pub(crate) fn ready_on(toml: &str) -> Self {
        let cuda = Self::load(toml);
        good(cuda.cuInit(0));
        let mut context: CUcontext = null();
        good(cuda.cuDevicePrimaryCtxRetain(Out::of(&mut context), 0));
        good(cuda.cuCtxSetCurrent(context));
        cuda
    }

    /// Free bytes of the current GPU.
    pub(crate) fn free(&self) -> u64 {
        let (mut free, mut total) = (0_usize, 0_usize);
        good(self.cuMemGetInfo_v2(Out::of(&mut free), Out::of(&mut total)));
        free as u64
    }

    /// Allocates device memory.
    pub(crate) fn alloc(&self, bytes: usize) -> CUdeviceptr {
        let mut pointer = 0;
        good(self.cuMemAlloc_v2(Out::of(&mut pointer), bytes));
        pointer
    }

    /// Writes device memory.
    pub(crate) fn put(&self, to: CUdeviceptr, bytes: &[u8]) {
        good(self.cuMemcpyHtoD_v2(to, bytes_in(bytes), bytes.len()));
    }

    /// Reads device memory.
    pub(crate) fn get(&self, from: CUdeviceptr, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        good(self.cuMemcpyDtoH_v2(bytes_out(&mut bytes), from, len));
        bytes
    }

    /// A stream that does not care about the NULL stream.
    pub(crate) fn stream(&self) -> CUstream {
        let mut stream = null();
        good(self.cuStreamCreate(Out::of(&mut stream), CU_STREAM_NON_BLOCKING));
        stream
    }

    /// An event with time.
    pub(crate) fn event(&self) -> CUevent {
        let mut event = null();
        good(self.cuEventCreate(Out::of(&mut event), 0));
        event
    }

    /// Milliseconds between two events that are done.
    pub(crate) fn elapsed(&self, start: CUevent, end: CUevent) -> f32 {
        let mut time = 0.0;
        good(self.cuEventElapsedTime(Out::of(&mut time), start, end));
        time
    }

    /// Loads PTX and answers one of its functions.
    pub(crate) fn function(&self, entries: &str, name: &str) -> CUfunction {
        let text = format!(".version 8.0\n.target sm_80\n.address_size 64\n{entries}\0");
        let mut module: CUmodule = null();
        good(self.cuModuleLoadData(Out::of(&mut module), bytes_in(text.as_bytes())));
        let name = format!("{name}\0");
        let mut function = null();
        good(self.cuModuleGetFunction(Out::of(&mut function), module, text_in(&name)));
        function
    }

    /// A kernel that takes as long as its argument says.
    pub(crate) fn spin(&self) -> CUfunction {
        self.function(".visible .entry spin(.param .u64 ns) { ret; }", "spin")
    }

    /// Launches a kernel of one thread with one argument.
    pub(crate) fn launch(
        &self,
        function: CUfunction,
        stream: CUstream,
        mut argument: u64,
    ) -> CUresult {
        let mut arguments = [(&raw mut argument).cast::<c_void>()];
        // SAFETY: the array and the argument in it outlive the call.
        let params = unsafe { Out::from_ptr(arguments.as_mut_ptr()) };
        self.cuLaunchKernel(function, 1, 1, 1, 1, 1, 1, 0, stream, params, Out::null())
    }
}

/// The null handle or pointer.
pub(crate) fn null<T>() -> *mut T {
    core::ptr::null_mut()
}

/// A value that the library reads.
pub(crate) fn input<T>(value: &T) -> In<T> {
    // SAFETY: the reference outlives the call that it is made for.
    unsafe { In::from_ptr(value) }
}

/// The start of an array that the library reads or writes.
pub(crate) fn array<T>(values: &mut [T]) -> Out<T> {
    // SAFETY: the slice outlives the call that it is made for.
    unsafe { Out::from_ptr(values.as_mut_ptr()) }
}

/// No input.
pub(crate) fn nothing<T>() -> In<T> {
    // SAFETY: null is allowed.
    unsafe { In::from_ptr(core::ptr::null()) }
}

/// Bytes that the library reads.
pub(crate) fn bytes_in(bytes: &[u8]) -> In<c_void> {
    // SAFETY: the slice outlives the call that it is made for.
    unsafe { In::from_ptr(bytes.as_ptr().cast()) }
}

/// Bytes that the library writes.
pub(crate) fn bytes_out(bytes: &mut [u8]) -> Out<c_void> {
    // SAFETY: the slice outlives the call that it is made for.
    unsafe { Out::from_ptr(bytes.as_mut_ptr().cast()) }
}

/// A place for an attribute of any type.
pub(crate) fn any<T>(place: &mut T) -> Out<c_void> {
    // SAFETY: the place outlives the call that it is made for.
    unsafe { Out::from_ptr(core::ptr::from_mut(place).cast()) }
}

/// A pointer's value as an argument.
pub(crate) fn address(pointer: u64) -> Out<c_void> {
    // SAFETY: what the library handed out, or what a test says that it must refuse.
    unsafe { Out::from_ptr(pointer as *mut c_void) }
}

/// Text with a zero at its end.
pub(crate) fn text_in(text: &str) -> In<c_char> {
    assert!(text.ends_with('\0'));
    // SAFETY: a C string that outlives the call that it is made for.
    unsafe { In::from_ptr(text.as_ptr().cast()) }
}

/// All zeroes, for C structures.
pub(crate) fn zeroed<T: Copy>() -> T {
    // SAFETY: used for C structures only, for which all zeroes is a value.
    unsafe { core::mem::zeroed() }
}

/// The call succeeded.
#[track_caller]
pub(crate) fn good(status: CUresult) {
    assert_eq!(status, CUDA_SUCCESS);
}

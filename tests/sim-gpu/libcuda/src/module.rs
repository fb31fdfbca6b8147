//! Modules and functions: code loaded into one context.
//!
//! Owns [`Module`] and [`Function`]. How long a kernel occupies its GPU, in this order:
//!
//! 1. a kernel whose name contains `spin` takes as many nanoseconds as its first parameter says (an unsigned integer
//!    of 4 or 8 bytes; 8 where the image does not say);
//! 2. else what the image says (`// sim-gpu: duration_ns=<n>` in PTX, see [`crate::image`]);
//! 3. else 2 microseconds.

use core::ffi::{CStr, c_char, c_uint, c_void};
use std::collections::HashMap;
use std::ffi::CString;

use vgpu_cuda_sys::cuda::*;
use vgpu_cuda_sys::{In, Out};

use crate::error::{Cu, Fail, ensure, ensure_or, fail, put, put_optional};
use crate::image::{self, Entry, Image, Target};
use crate::memory::{Wide, narrow, units};
use crate::region::{Kind, Region};
use crate::state::{State, handle, id, lock, node};
use crate::{init, raw};

/// What a kernel takes when nobody says.
const DEFAULT_DURATION: u64 = 2_000;

/// Code in one context.
#[derive(Debug)]
pub(crate) struct Module {
    pub(crate) context: u64,
    /// Its functions, in the image's order.
    pub(crate) functions: Vec<(String, u64)>,
    /// Its variables: name, address, size, managed.
    pub(crate) globals: Vec<(String, u64, u64, bool)>,
    /// The library that it belongs to; unloaded with that only.
    pub(crate) library: u64,
}

/// How long a kernel takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Duration {
    /// Always so many nanoseconds.
    Fixed(u64),
    /// What the first parameter says, which has so many bytes.
    FirstParameter(usize),
}

/// A kernel: of a module, or (`module` 0) of a library.
#[derive(Debug)]
pub(crate) struct Function {
    pub(crate) module: u64,
    pub(crate) library: u64,
    pub(crate) name: CString,
    pub(crate) entry: Entry,
    pub(crate) duration: Duration,
    /// What `cuFuncSetAttribute` and the like have set.
    pub(crate) attributes: HashMap<CUfunction_attribute, i32>,
    /// What the launch functions of old have set: block shape, shared bytes, parameters.
    pub(crate) legacy: Legacy,
}

/// Settings of `cuFuncSetBlockShape`, `cuFuncSetSharedSize` and `cuParamSet*`.
#[derive(Debug, Clone, Default)]
pub(crate) struct Legacy {
    pub(crate) block: [c_uint; 3],
    pub(crate) shared: c_uint,
    pub(crate) params: Vec<u8>,
}

impl Function {
    pub(crate) fn new(entry: &Entry, module: u64, library: u64) -> Self {
        let first = entry.params.first().map_or(8, |&(_, size)| size);
        let duration = if entry.name.contains("spin") && matches!(first, 4 | 8) {
            Duration::FirstParameter(first)
        } else {
            Duration::Fixed(entry.duration.unwrap_or(DEFAULT_DURATION))
        };
        Self {
            module,
            library,
            name: CString::new(entry.name.as_str()).unwrap_or_default(),
            entry: entry.clone(),
            duration,
            attributes: HashMap::new(),
            legacy: Legacy {
                block: [1, 1, 1],
                ..Legacy::default()
            },
        }
    }
}

impl State {
    /// What the current device and driver can load.
    pub(crate) fn target(&self) -> Cu<Target> {
        let device = self.current_device()?;
        let (major, minor) = self.devices[device].gpu.config.compute_capability;
        Ok(Target {
            capability: major * 10 + minor,
            cuda: init::version(),
        })
    }

    /// Loads an image into the current context. Its variables are charged to the GPU.
    pub(crate) fn load(&mut self, image: &Image, library: u64) -> Cu<u64> {
        let context = self.current()?;
        let device = self.contexts[&context].device;
        let module = self.new_handle();
        let mut globals = Vec::new();
        for global in &image.globals {
            let size = units(global.size.max(1))?;
            let base = self.take_device(device, size, 512, size)?;
            let mut region = Region::new(base, global.size.max(1), Kind::Global, device, 0);
            region.written = true;
            self.add_region(region);
            globals.push((global.name.clone(), base, global.size, global.managed));
        }
        let mut functions = Vec::new();
        for entry in &image.entries {
            let function = self.new_handle();
            self.functions
                .insert(function, Function::new(entry, module, library));
            functions.push((entry.name.clone(), function));
        }
        self.modules.insert(
            module,
            Module {
                context,
                functions,
                globals,
                library,
            },
        );
        Ok(module)
    }

    /// Unloads a module.
    pub(crate) fn end_module(&mut self, module: u64) {
        let Some(ended) = self.modules.remove(&module) else {
            return;
        };
        for (_, function) in ended.functions {
            self.functions.remove(&function);
        }
        for (_, base, ..) in ended.globals {
            if let Some(region) = self.regions.remove(base) {
                node().refund(self.gpu(region.device), region.size.next_multiple_of(512));
                self.give_addresses(region.device, region.base, region.size, true);
            }
        }
    }

    /// Unloads what a context leaves behind.
    pub(crate) fn end_modules_of(&mut self, context: u64) {
        let of = self
            .modules
            .iter()
            .filter(|(_, module)| module.context == context);
        let modules: Vec<u64> = of.map(|(&id, _)| id).collect();
        for module in modules {
            self.end_module(module);
        }
        for library in self.libraries.values_mut() {
            library.modules.remove(&context);
        }
    }

    fn module(&self, module: CUmodule) -> Cu<&Module> {
        self.modules
            .get(&id(module))
            .ok_or(Fail(CUDA_ERROR_INVALID_HANDLE))
    }

    /// The function or kernel of a handle.
    pub(crate) fn function(&mut self, function: u64) -> Cu<&mut Function> {
        self.functions
            .get_mut(&function)
            .ok_or(Fail(CUDA_ERROR_INVALID_HANDLE))
    }
}

/// The bytes of a file that the program names.
pub(crate) fn file(name: In<c_char>) -> Cu<Vec<u8>> {
    let name = raw::text(name).ok_or(Fail(CUDA_ERROR_INVALID_VALUE))?;
    std::fs::read(name).or_else(|_| fail(CUDA_ERROR_FILE_NOT_FOUND))
}

pub(crate) fn load(out: Out<CUmodule>, name: In<c_char>) -> Cu {
    ensure(!out.is_null())?;
    let bytes = file(name)?;
    let mut state = lock();
    let image = image::of_bytes(bytes, state.target()?)?;
    let module = state.load(&image, 0)?;
    put(out, handle(module))
}

pub(crate) fn load_data(out: Out<CUmodule>, image: In<c_void>) -> Cu {
    ensure(!out.is_null())?;
    let mut state = lock();
    let image = image::at(raw::addr_in(image), state.target()?)?;
    let module = state.load(&image, 0)?;
    put(out, handle(module))
}

/// `cuModuleLoadDataEx`: options for a compiler make no difference here.
pub(crate) fn load_data_ex(
    out: Out<CUmodule>,
    image: In<c_void>,
    count: c_uint,
    options: Out<CUjit_option>,
    values: Out<*mut c_void>,
) -> Cu {
    ensure(count == 0 || !options.is_null() && !values.is_null())?;
    load_data(out, image)
}

pub(crate) fn unload(module: CUmodule) -> Cu {
    let mut state = lock();
    let library = state.module(module)?.library;
    ensure_or(library == 0, CUDA_ERROR_NOT_PERMITTED)?;
    state.end_module(id(module));
    Ok(())
}

/// `cuModuleGetLoadingMode`: `CUDA_MODULE_LOADING` decides, lazy without it.
pub(crate) fn loading_mode(out: Out<CUmoduleLoadingMode>) -> Cu {
    let eager = std::env::var("CUDA_MODULE_LOADING").is_ok_and(|mode| mode == "EAGER");
    put(
        out,
        if eager {
            CU_MODULE_EAGER_LOADING
        } else {
            CU_MODULE_LAZY_LOADING
        },
    )
}

pub(crate) fn get_function(out: Out<CUfunction>, module: CUmodule, name: In<c_char>) -> Cu {
    ensure(!out.is_null())?;
    let name = raw::text(name).ok_or(Fail(CUDA_ERROR_INVALID_VALUE))?;
    let state = lock();
    let found = state
        .module(module)?
        .functions
        .iter()
        .find(|(known, _)| *known == name);
    put(out, handle(found.ok_or(Fail(CUDA_ERROR_NOT_FOUND))?.1))
}

pub(crate) fn function_count(out: Out<c_uint>, module: CUmodule) -> Cu {
    ensure(!out.is_null())?;
    put(out, lock().module(module)?.functions.len() as c_uint)
}

pub(crate) fn enumerate(out: Out<CUfunction>, count: c_uint, module: CUmodule) -> Cu {
    ensure(!out.is_null() && count > 0)?;
    let state = lock();
    let functions = state.module(module)?.functions.iter().take(count as usize);
    let handles: Vec<CUfunction> = functions.map(|&(_, function)| handle(function)).collect();
    ensure(out.write_all(&handles))
}

/// `cuModuleGetGlobal` in both versions: either result may be left out, not both.
pub(crate) fn get_global<P: Wide, N: Wide>(
    out: Out<P>,
    size: Out<N>,
    module: CUmodule,
    name: In<c_char>,
) -> Cu {
    let name = raw::text(name).ok_or(Fail(CUDA_ERROR_INVALID_VALUE))?;
    let state = lock();
    let global = state
        .module(module)?
        .globals
        .iter()
        .find(|(known, ..)| *known == name);
    let (_, base, len, _) = global.ok_or(Fail(CUDA_ERROR_NOT_FOUND))?;
    put_global(out, size, *base, *len)
}

/// Writes where a variable is and how long.
pub(crate) fn put_global<P: Wide, N: Wide>(out: Out<P>, size: Out<N>, base: u64, len: u64) -> Cu {
    ensure(!out.is_null() || !size.is_null())?;
    put_optional(out, narrow(base)?)?;
    put_optional(size, narrow(len)?)
}

/// The text behind a name that lives as long as its function.
pub(crate) fn name_pointer(name: &CStr) -> *const c_char {
    name.as_ptr()
}

//! Libraries: code that is not bound to a context, and the linker.
//!
//! A library loads itself into a context, as a module, when something in it is first used there. The linker "links"
//! by handing out the last input that it was given.

use core::ffi::{c_char, c_uint, c_void};

use vgpu_cuda_sys::cuda::*;
use vgpu_cuda_sys::{In, Out};

use crate::error::{Cu, Fail, ensure, ensure_or, fail, put};
use crate::image::{self, Image};
use crate::memory::{Wide, narrow};
use crate::module::{Function, file, put_global};
use crate::raw;
use crate::state::{Map, State, handle, id, lock};

/// Code without a context.
#[derive(Debug)]
pub(crate) struct Library {
    image: Image,
    /// Kernels by name, in the image's order.
    kernels: Vec<(String, u64)>,
    /// The module in each context that has used it.
    pub(crate) modules: Map<u64>,
}

/// A link in progress, or done.
#[derive(Debug, Default)]
pub(crate) struct Link {
    image: Option<Vec<u8>>,
}

impl State {
    fn library(&self, library: CUlibrary) -> Cu<&Library> {
        self.libraries
            .get(&id(library))
            .ok_or(Fail(CUDA_ERROR_INVALID_HANDLE))
    }

    /// The library's module in the current context, loaded if need be.
    fn library_module(&mut self, library: u64) -> Cu<u64> {
        let context = self.current()?;
        let found = self
            .libraries
            .get(&library)
            .ok_or(Fail(CUDA_ERROR_INVALID_HANDLE))?;
        if let Some(&module) = found.modules.get(&context) {
            return Ok(module);
        }
        let image = found.image.clone();
        let module = self.load(&image, library)?;
        if let Some(library) = self.libraries.get_mut(&library) {
            library.modules.insert(context, module);
        }
        Ok(module)
    }

    /// The function in the current context that a kernel stands for.
    pub(crate) fn kernel_function(&mut self, kernel: u64) -> Cu<u64> {
        let Function { library, name, .. } = self.function(kernel)?;
        let (library, name) = (*library, name.to_string_lossy().into_owned());
        ensure_or(library != 0, CUDA_ERROR_INVALID_HANDLE)?;
        let module = self.library_module(library)?;
        let functions = &self.modules[&module].functions;
        let found = functions.iter().find(|(known, _)| *known == name);
        Ok(found.ok_or(Fail(CUDA_ERROR_NOT_FOUND))?.1)
    }

    fn add_library(&mut self, image: Image) -> u64 {
        let library = self.new_handle();
        let mut kernels = Vec::new();
        for entry in &image.entries {
            let kernel = self.new_handle();
            self.functions
                .insert(kernel, Function::new(entry, 0, library));
            kernels.push((entry.name.clone(), kernel));
        }
        self.libraries.insert(
            library,
            Library {
                image,
                kernels,
                modules: Map::default(),
            },
        );
        library
    }

    /// What any GPU of the process can load, since a library has no context yet.
    fn any_target(&self) -> image::Target {
        let capability = |device: &crate::device::Device| {
            let (major, minor) = device.gpu.config.compute_capability;
            major * 10 + minor
        };
        let capability = self.devices.iter().map(capability).max().unwrap_or(0);
        image::Target {
            capability,
            cuda: crate::init::version(),
        }
    }
}

pub(crate) fn load_data(
    out: Out<CUlibrary>,
    code: In<c_void>,
    _jit: Out<CUjit_option>,
    _jit_values: Out<*mut c_void>,
    _jit_count: c_uint,
    _options: Out<CUlibraryOption>,
    _values: Out<*mut c_void>,
    _count: c_uint,
) -> Cu {
    ensure(!out.is_null())?;
    let mut state = lock();
    let image = image::at(raw::addr_in(code), state.any_target())?;
    let library = state.add_library(image);
    put(out, handle(library))
}

pub(crate) fn load_file(
    out: Out<CUlibrary>,
    name: In<c_char>,
    _jit: Out<CUjit_option>,
    _jit_values: Out<*mut c_void>,
    _jit_count: c_uint,
    _options: Out<CUlibraryOption>,
    _values: Out<*mut c_void>,
    _count: c_uint,
) -> Cu {
    ensure(!out.is_null())?;
    let bytes = file(name)?;
    let mut state = lock();
    let image = image::of_bytes(bytes, state.any_target())?;
    let library = state.add_library(image);
    put(out, handle(library))
}

pub(crate) fn unload(library: CUlibrary) -> Cu {
    let mut state = lock();
    let ended = state
        .libraries
        .remove(&id(library))
        .ok_or(Fail(CUDA_ERROR_INVALID_HANDLE))?;
    for &module in ended.modules.values() {
        state.end_module(module);
    }
    for (_, kernel) in ended.kernels {
        state.functions.remove(&kernel);
    }
    Ok(())
}

pub(crate) fn get_kernel(out: Out<CUkernel>, library: CUlibrary, name: In<c_char>) -> Cu {
    ensure(!out.is_null())?;
    let name = raw::text(name).ok_or(Fail(CUDA_ERROR_INVALID_VALUE))?;
    let state = lock();
    let found = state
        .library(library)?
        .kernels
        .iter()
        .find(|(known, _)| *known == name);
    put(out, handle(found.ok_or(Fail(CUDA_ERROR_NOT_FOUND))?.1))
}

pub(crate) fn kernel_count(out: Out<c_uint>, library: CUlibrary) -> Cu {
    ensure(!out.is_null())?;
    put(out, lock().library(library)?.kernels.len() as c_uint)
}

pub(crate) fn enumerate(out: Out<CUkernel>, count: c_uint, library: CUlibrary) -> Cu {
    ensure(!out.is_null() && count > 0)?;
    let state = lock();
    let kernels = state.library(library)?.kernels.iter().take(count as usize);
    let handles: Vec<CUkernel> = kernels.map(|&(_, kernel)| handle(kernel)).collect();
    ensure(out.write_all(&handles))
}

pub(crate) fn get_module(out: Out<CUmodule>, library: CUlibrary) -> Cu {
    ensure(!out.is_null())?;
    let module = lock().library_module(id(library))?;
    put(out, handle(module))
}

pub(crate) fn get_global(
    out: Out<CUdeviceptr>,
    size: Out<usize>,
    library: CUlibrary,
    name: In<c_char>,
) -> Cu {
    variable(out, size, library, name, false)
}

pub(crate) fn get_managed(
    out: Out<CUdeviceptr>,
    size: Out<usize>,
    library: CUlibrary,
    name: In<c_char>,
) -> Cu {
    variable(out, size, library, name, true)
}

fn variable<P: Wide, N: Wide>(
    out: Out<P>,
    size: Out<N>,
    library: CUlibrary,
    name: In<c_char>,
    only_managed: bool,
) -> Cu {
    let name = raw::text(name).ok_or(Fail(CUDA_ERROR_INVALID_VALUE))?;
    let mut state = lock();
    let module = state.library_module(id(library))?;
    let mut globals = state.modules[&module].globals.iter();
    let found =
        globals.find(|(known, _, _, managed)| *known == name && (*managed || !only_managed));
    let (_, base, len, _) = found.ok_or(Fail(CUDA_ERROR_NOT_FOUND))?;
    put_global(out, size, *base, *len)
}

/// `cuLibraryGetUnifiedFunction`: needs symbols that only a compiler makes.
pub(crate) fn get_unified(_out: Out<*mut c_void>, library: CUlibrary, _name: In<c_char>) -> Cu {
    lock().library(library)?;
    fail(CUDA_ERROR_NOT_FOUND)
}

pub(crate) fn kernel_library(out: Out<CUlibrary>, kernel: CUkernel) -> Cu {
    ensure(!out.is_null())?;
    let library = lock().function(id(kernel))?.library;
    put(out, handle(library))
}

pub(crate) fn get_function(out: Out<CUfunction>, kernel: CUkernel) -> Cu {
    ensure(!out.is_null())?;
    let function = lock().kernel_function(id(kernel))?;
    put(out, handle(function))
}

pub(crate) fn link_create(
    _count: c_uint,
    _options: Out<CUjit_option>,
    _values: Out<*mut c_void>,
    out: Out<CUlinkState>,
) -> Cu {
    ensure(!out.is_null())?;
    let mut state = lock();
    state.current()?;
    let link = state.new_handle();
    state.links.insert(link, Link::default());
    put(out, handle(link))
}

fn add(link: CUlinkState, bytes: Vec<u8>) -> Cu {
    let mut state = lock();
    let link = state
        .links
        .get_mut(&id(link))
        .ok_or(Fail(CUDA_ERROR_INVALID_HANDLE))?;
    link.image = Some(bytes);
    Ok(())
}

pub(crate) fn link_add_data(
    link: CUlinkState,
    kind: CUjitInputType,
    data: Out<c_void>,
    size: usize,
    _name: In<c_char>,
    _count: c_uint,
    _options: Out<CUjit_option>,
    _values: Out<*mut c_void>,
) -> Cu {
    ensure(!data.is_null() && size > 0 && kind <= CU_JIT_INPUT_NVVM)?;
    let target = lock().target()?;
    let bytes = raw::bytes(raw::addr_out(data), size);
    if matches!(
        kind,
        CU_JIT_INPUT_PTX | CU_JIT_INPUT_CUBIN | CU_JIT_INPUT_FATBINARY
    ) {
        image::of_bytes(bytes.clone(), target)?;
    }
    add(link, bytes)
}

pub(crate) fn link_add_file(
    link: CUlinkState,
    kind: CUjitInputType,
    name: In<c_char>,
    _count: c_uint,
    _options: Out<CUjit_option>,
    _values: Out<*mut c_void>,
) -> Cu {
    ensure(kind <= CU_JIT_INPUT_NVVM)?;
    add(link, file(name)?)
}

/// `cuLinkComplete`: the image stays the link's until that is destroyed.
pub(crate) fn link_complete(link: CUlinkState, out: Out<*mut c_void>, size: Out<usize>) -> Cu {
    ensure(!out.is_null())?;
    let mut state = lock();
    let link = state
        .links
        .get_mut(&id(link))
        .ok_or(Fail(CUDA_ERROR_INVALID_HANDLE))?;
    let image = link.image.as_mut().ok_or(Fail(CUDA_ERROR_INVALID_VALUE))?;
    if image.last() != Some(&0) {
        image.push(0);
    }
    put(out, image.as_mut_ptr().cast())?;
    size.write(narrow(image.len() as u64)?);
    Ok(())
}

pub(crate) fn link_destroy(link: CUlinkState) -> Cu {
    let known = lock().links.remove(&id(link)).is_some();
    ensure_or(known, CUDA_ERROR_INVALID_HANDLE)
}

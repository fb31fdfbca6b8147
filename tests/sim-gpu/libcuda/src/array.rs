//! stub
use crate::{
    copy::Side,
    error::{Cu, fail},
    state::State,
};
use vgpu_cuda_sys::cuda::*;
#[derive(Debug)]
pub(crate) struct Array;
#[derive(Debug)]
pub(crate) struct Mipmap;
pub(crate) struct ArrayPlace {
    pub(crate) base: u64,
    pub(crate) pitch: u64,
    pub(crate) rows: u64,
    pub(crate) device: usize,
}
pub(crate) fn format_bytes(_: CUarray_format) -> Cu<u64> {
    Ok(1)
}
impl State {
    pub(crate) fn array_to_copy(&mut self, _: u64, _: &Side, _: [u64; 3]) -> Cu<ArrayPlace> {
        fail(CUDA_ERROR_INVALID_HANDLE)
    }
    pub(crate) fn end_arrays_of(&mut self, _: u64) {}
}

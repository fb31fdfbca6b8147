//! stub
#[derive(Debug, Clone)]
pub(crate) struct KernelCall {
    pub(crate) duration: u64,
}

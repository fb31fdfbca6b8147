//! stub
#[derive(Debug)]
pub(crate) struct Physical;

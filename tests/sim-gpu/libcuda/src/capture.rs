//! stub
use crate::{error::Cu, queue::Work, state::State};
#[derive(Debug)]
pub(crate) struct Capture;
pub(crate) fn forbid_unsafe() -> Cu {
    Ok(())
}
pub(crate) fn forbid_sync(_: u64) -> Cu {
    Ok(())
}
pub(crate) fn forbid_implicit(_: &mut State, _: u64) -> Cu {
    Ok(())
}
impl State {
    pub(crate) fn forbid_while_capturing(&mut self, _: u64) -> Cu {
        Ok(())
    }
    pub(crate) fn join_capture(&mut self, _: u64, _: u64, _: u32) -> Cu<bool> {
        Ok(false)
    }
    pub(crate) fn end_capture_with(&mut self, _: u64) {}
    pub(crate) fn capture_event(&mut self, _: u64, _: u64, _: u32) -> Cu<bool> {
        Ok(false)
    }
    pub(crate) fn capture_work(&mut self, _: u64, _: &Work) -> Cu<bool> {
        Ok(false)
    }
}
impl State {
    pub(crate) fn capture_alloc(&mut self, _: u64, _: u64) -> Cu<Option<u64>> {
        Ok(None)
    }
}

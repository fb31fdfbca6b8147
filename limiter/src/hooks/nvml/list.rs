//! Lists, as NVML takes and gives them: a count that comes in as the room and goes out as the number.

use std::ffi::c_uint;

use vgpu_cuda_sys::Out;
use vgpu_cuda_sys::nvml::{
    NVML_ERROR_INSUFFICIENT_SIZE, NVML_ERROR_INVALID_ARGUMENT, NVML_SUCCESS, nvmlReturn_t,
};

use super::good;

/// How often a list may grow between asking for its length and reading it.
const ATTEMPTS: usize = 8;
/// Spare room for what begins in between.
const SPARE: usize = 8;

/// Fills the caller's array. Too little room answers `NVML_ERROR_INSUFFICIENT_SIZE` and writes the number only.
pub(super) fn put<T: Copy>(
    items: &[T],
    count: Out<c_uint>,
    out: Out<T>,
) -> Result<(), nvmlReturn_t> {
    let room = count.read().ok_or(NVML_ERROR_INVALID_ARGUMENT)?;
    let number = number(items);
    if room < number {
        count.write(number);
        return Err(NVML_ERROR_INSUFFICIENT_SIZE);
    }
    if number > 0 && out.is_null() {
        return Err(NVML_ERROR_INVALID_ARGUMENT);
    }
    out.write_all(items);
    count.write(number);
    Ok(())
}

/// The length of a list as a count.
pub(super) fn number<T>(items: &[T]) -> c_uint {
    c_uint::try_from(items.len()).unwrap_or(c_uint::MAX)
}

/// The driver's whole list, in a place of ours.
pub(super) fn fetch<T: Copy>(
    blank: T,
    call: impl Fn(Out<c_uint>, Out<T>) -> nvmlReturn_t,
) -> Result<Vec<T>, nvmlReturn_t> {
    let mut room = 0;
    for _ in 0..ATTEMPTS {
        let mut items = vec![blank; room];
        let mut count = number(&items);
        let answer = call(
            Out::of(&mut count),
            items.first_mut().map_or(Out::null(), Out::of),
        );
        let count = usize::try_from(count).unwrap_or(usize::MAX);
        if answer != NVML_ERROR_INSUFFICIENT_SIZE {
            good(answer)?;
            // Some functions tell the number to a caller without room, and call that a success.
            if count <= room {
                items.truncate(count);
                return Ok(items);
            }
        }
        room = count.saturating_add(SPARE).min(1 << 20);
    }
    Err(NVML_ERROR_INSUFFICIENT_SIZE)
}

/// Whether the driver would serve a list at all; asked without room for any.
pub(super) fn judged<T>(
    call: impl FnOnce(Out<c_uint>, Out<T>) -> nvmlReturn_t,
) -> Result<(), nvmlReturn_t> {
    let mut count = 0;
    match call(Out::of(&mut count), Out::null()) {
        NVML_SUCCESS | NVML_ERROR_INSUFFICIENT_SIZE => Ok(()),
        error => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_little_room_tells_how_much_is_needed() {
        let (mut count, mut room) = (1, [0_u32; 2]);
        let answer = put(&[7, 8], Out::of(&mut count), Out::of(&mut room[0]));
        assert_eq!(
            (answer, count, room),
            (Err(NVML_ERROR_INSUFFICIENT_SIZE), 2, [0, 0])
        );
        let mut none = 0;
        assert_eq!(put::<u32>(&[], Out::of(&mut none), Out::null()), Ok(()));
        assert_eq!(none, 0);
    }

    #[test]
    fn nowhere_to_put_it_is_the_callers_mistake() {
        let mut count = 5;
        let nowhere = put(&[7], Out::of(&mut count), Out::null());
        assert_eq!(nowhere, Err(NVML_ERROR_INVALID_ARGUMENT));
        let nowhere = put::<u32>(&[], Out::null(), Out::null());
        assert_eq!(nowhere, Err(NVML_ERROR_INVALID_ARGUMENT));
    }

    #[test]
    fn a_list_is_fetched_whichever_way_its_length_is_told() {
        for told in [NVML_SUCCESS, NVML_ERROR_INSUFFICIENT_SIZE] {
            let call = |count: Out<c_uint>, out: Out<u32>| {
                let room = count.read().unwrap();
                count.write(3);
                if room < 3 {
                    return told;
                }
                out.write_all(&[1, 2, 3]);
                NVML_SUCCESS
            };
            assert_eq!(fetch(0, call), Ok(vec![1, 2, 3]));
        }
        assert_eq!(fetch(0_u32, |_, _| 4), Err(4));
    }
}

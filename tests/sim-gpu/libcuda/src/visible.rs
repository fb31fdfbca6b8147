//! `CUDA_VISIBLE_DEVICES`: which of the GPUs a process sees, and in which order.
//!
//! Facts: the CUDA programming guide's chapter on environment variables. An entry is an index or a prefix of a
//! UUID; the list ends at the first entry that names no GPU; naming one twice makes none visible.

use sim_gpu::config::GpuConfig;

/// A GPU that the process may open: its index on the node and what it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Gpu {
    /// Index on the node.
    pub(crate) index: usize,
    /// Its description.
    pub(crate) config: GpuConfig,
}

/// The visible ones of `present`, in the order that `list` asks for.
pub(crate) fn choose(present: &[Gpu], list: Option<&str>) -> Vec<Gpu> {
    let Some(list) = list else {
        return present.to_vec();
    };
    let mut chosen: Vec<Gpu> = Vec::new();
    for entry in list.split(',') {
        let Some(gpu) = find(present, entry.trim()) else {
            break;
        };
        if chosen.contains(gpu) {
            return Vec::new();
        }
        chosen.push(gpu.clone());
    }
    chosen
}

fn find<'gpus>(present: &'gpus [Gpu], entry: &str) -> Option<&'gpus Gpu> {
    if entry.starts_with("GPU-") {
        let wanted = entry.to_ascii_lowercase();
        let mut matching = present
            .iter()
            .filter(|gpu| gpu.config.uuid.to_ascii_lowercase().starts_with(&wanted));
        let first = matching.next();
        return if matching.next().is_none() {
            first
        } else {
            None
        };
    }
    present.get(entry.parse::<usize>().ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use sim_gpu::config::NodeConfig;

    fn gpus() -> Vec<Gpu> {
        let node = NodeConfig::parse("count = 3").unwrap();
        node.gpus
            .into_iter()
            .enumerate()
            .map(|(index, config)| Gpu { index, config })
            .collect()
    }

    fn chosen(list: &str) -> Vec<usize> {
        choose(&gpus(), Some(list))
            .iter()
            .map(|gpu| gpu.index)
            .collect()
    }

    #[test]
    fn indices_reorder_and_an_unknown_one_ends_the_list() {
        assert_eq!(choose(&gpus(), None).len(), 3);
        assert_eq!(chosen("2,0"), [2, 0]);
        assert_eq!(chosen("1, 7, 0"), [1]);
        assert_eq!(chosen(""), [0; 0]);
        assert_eq!(chosen("-1"), [0; 0]);
        assert_eq!(chosen("0,0"), [0; 0]);
    }

    #[test]
    fn uuids_may_be_shortened_while_they_stay_unique() {
        let uuid = gpus()[1].config.uuid.clone();
        assert_eq!(chosen(&uuid), [1]);
        assert_eq!(chosen(&uuid[..12]), [1]);
        assert_eq!(chosen("GPU-"), [0; 0]);
    }
}

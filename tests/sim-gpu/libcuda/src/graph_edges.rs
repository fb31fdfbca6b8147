//! What leads to what in a graph: lists of nodes and edges, adding and removing edges.
//!
//! Every edge has the default data, which the newer versions of these functions tell as zeroes.

use vgpu_cuda_sys::cuda::*;
use vgpu_cuda_sys::{In, Out};

use crate::error::{Cu, Fail, ensure, put};
use crate::raw;
use crate::state::{handle, id, lock};

/// Copies handles out: all of them, and null for the room that is left. Without a place, only their number.
fn put_list<T>(out: Out<*mut T>, count: Out<usize>, list: &[u64]) -> Cu {
    let room = count.read().ok_or(Fail(CUDA_ERROR_INVALID_VALUE))?;
    if out.is_null() {
        return put(count, list.len());
    }
    let handles: Vec<*mut T> = (0..room)
        .map(|index| handle(list.get(index).copied().unwrap_or(0)))
        .collect();
    out.write_all(&handles);
    put(count, room.min(list.len()))
}

fn put_edge_data(out: Out<CUgraphEdgeData>, count: usize) {
    let data: Vec<CUgraphEdgeData> = vec![raw::zeroed(); count];
    out.write_all(&data);
}

pub(crate) fn get_nodes(graph: CUgraph, out: Out<CUgraphNode>, count: Out<usize>) -> Cu {
    let nodes = lock().graph(id(graph))?.nodes.clone();
    put_list(out, count, &nodes)
}

pub(crate) fn get_roots(graph: CUgraph, out: Out<CUgraphNode>, count: Out<usize>) -> Cu {
    let mut state = lock();
    let nodes = state.graph(id(graph))?.nodes.clone();
    let is_root = |node: &u64| {
        state
            .nodes
            .get(node)
            .is_some_and(|node| node.after.is_empty())
    };
    let roots: Vec<u64> = nodes.into_iter().filter(is_root).collect();
    put_list(out, count, &roots)
}

pub(crate) fn get_edges(
    graph: CUgraph,
    from: Out<CUgraphNode>,
    to: Out<CUgraphNode>,
    count: Out<usize>,
) -> Cu {
    get_edges_v2(graph, from, to, Out::null(), count)
}

pub(crate) fn get_edges_v2(
    graph: CUgraph,
    from: Out<CUgraphNode>,
    to: Out<CUgraphNode>,
    data: Out<CUgraphEdgeData>,
    count: Out<usize>,
) -> Cu {
    ensure(from.is_null() == to.is_null() && (data.is_null() || !from.is_null()))?;
    let edges = lock().edges(id(graph))?;
    let room = count.read().ok_or(Fail(CUDA_ERROR_INVALID_VALUE))?;
    let (starts, ends): (Vec<u64>, Vec<u64>) = edges.into_iter().unzip();
    put_list(from, count, &starts)?;
    if !to.is_null() {
        put_edge_data(data, room);
        count.write(room);
    }
    put_list(to, count, &ends)
}

pub(crate) fn get_dependencies(node: CUgraphNode, out: Out<CUgraphNode>, count: Out<usize>) -> Cu {
    get_dependencies_v2(node, out, Out::null(), count)
}

pub(crate) fn get_dependencies_v2(
    node: CUgraphNode,
    out: Out<CUgraphNode>,
    data: Out<CUgraphEdgeData>,
    count: Out<usize>,
) -> Cu {
    ensure(data.is_null() || !out.is_null())?;
    let after = lock().node(id(node))?.after.clone();
    put_edge_data(data, count.read().unwrap_or(0));
    put_list(out, count, &after)
}

pub(crate) fn get_dependents(node: CUgraphNode, out: Out<CUgraphNode>, count: Out<usize>) -> Cu {
    get_dependents_v2(node, out, Out::null(), count)
}

pub(crate) fn get_dependents_v2(
    node: CUgraphNode,
    out: Out<CUgraphNode>,
    data: Out<CUgraphEdgeData>,
    count: Out<usize>,
) -> Cu {
    ensure(data.is_null() || !out.is_null())?;
    let mut state = lock();
    let graph = state.node(id(node))?.graph;
    let edges = state.edges(graph)?;
    let later: Vec<u64> = edges
        .into_iter()
        .filter(|edge| edge.0 == id(node))
        .map(|edge| edge.1)
        .collect();
    put_edge_data(data, count.read().unwrap_or(0));
    put_list(out, count, &later)
}

/// The pairs of nodes that an edge function names.
fn pairs(
    graph: CUgraph,
    from: In<CUgraphNode>,
    to: In<CUgraphNode>,
    count: usize,
) -> Cu<Vec<(u64, u64)>> {
    let wrong = Fail(CUDA_ERROR_INVALID_VALUE);
    let from = raw::array::<u64>(raw::addr_in(from), count).ok_or(wrong)?;
    let to = raw::array::<u64>(raw::addr_in(to), count).ok_or(wrong)?;
    let mut state = lock();
    for &node in from.iter().chain(&to) {
        ensure(state.node(node)?.graph == id(graph))?;
    }
    Ok(from.into_iter().zip(to).collect())
}

pub(crate) fn add_dependencies(
    graph: CUgraph,
    from: In<CUgraphNode>,
    to: In<CUgraphNode>,
    count: usize,
) -> Cu {
    let pairs = pairs(graph, from, to, count)?;
    let mut state = lock();
    for &(from, to) in &pairs {
        let known = state.node(to)?.after.contains(&from);
        ensure(!known && !state.leads_to(to, from))?;
    }
    for (from, to) in pairs {
        state.node(to)?.after.push(from);
    }
    Ok(())
}

pub(crate) fn add_dependencies_v2(
    graph: CUgraph,
    from: In<CUgraphNode>,
    to: In<CUgraphNode>,
    _data: In<CUgraphEdgeData>,
    count: usize,
) -> Cu {
    add_dependencies(graph, from, to, count)
}

pub(crate) fn remove_dependencies(
    graph: CUgraph,
    from: In<CUgraphNode>,
    to: In<CUgraphNode>,
    count: usize,
) -> Cu {
    let pairs = pairs(graph, from, to, count)?;
    let mut state = lock();
    for &(from, to) in &pairs {
        ensure(state.node(to)?.after.contains(&from))?;
    }
    for (from, to) in pairs {
        state.node(to)?.after.retain(|&before| before != from);
    }
    Ok(())
}

pub(crate) fn remove_dependencies_v2(
    graph: CUgraph,
    from: In<CUgraphNode>,
    to: In<CUgraphNode>,
    _data: In<CUgraphEdgeData>,
    count: usize,
) -> Cu {
    remove_dependencies(graph, from, to, count)
}

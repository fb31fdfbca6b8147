//! Executable graphs: instances, launches, updates.
//!
//! An instance is a list of what to do, in an order that the edges allow; child graphs are laid out in place. A
//! graph of kernels alone is one piece of GPU time, so launching it costs what launching a kernel does.

use core::ffi::{c_char, c_uint, c_ulonglong};

use vgpu_cuda_sys::cuda::*;
use vgpu_cuda_sys::{In, Out};

use crate::error::{Cu, Fail, ensure, ensure_or, fail, put, put_optional};
use crate::graph::What;
use crate::graph_nodes as nodes;
use crate::queue::{self, Work};
use crate::region::Kind;
use crate::state::{State, handle, id, lock};
use crate::{raw, stream};

/// One thing to do, from one node.
#[derive(Debug, Clone)]
struct Step {
    /// The node of the graph that it came from; for steps of a child graph the child's node.
    node: u64,
    what: What,
    enabled: bool,
}

/// An instance of a graph.
#[derive(Debug)]
pub(crate) struct Exec {
    steps: Vec<Step>,
    flags: c_ulonglong,
    serial: u64,
    /// Kinds and edges of the graph's own nodes, to compare updates with.
    topology: Vec<(CUgraphNodeType, Vec<usize>)>,
}

const FLAGS: u32 = CUDA_GRAPH_INSTANTIATE_FLAG_AUTO_FREE_ON_LAUNCH
    | CUDA_GRAPH_INSTANTIATE_FLAG_UPLOAD
    | CUDA_GRAPH_INSTANTIATE_FLAG_DEVICE_LAUNCH
    | CUDA_GRAPH_INSTANTIATE_FLAG_USE_NODE_PRIORITY;

impl Exec {
    /// GPU time of an instance that has nothing but kernels.
    fn plain_cost(&self) -> Option<u64> {
        self.steps
            .iter()
            .filter(|step| step.enabled)
            .try_fold(0, |cost, step| match &step.what {
                What::Kernel(call) => Some(cost + call.duration),
                What::Empty => Some(cost),
                What::Busy(duration) => Some(cost + duration),
                _ => None,
            })
    }

    /// Addresses, sizes and devices of the memory that it brings to life.
    fn memory(&self) -> impl Iterator<Item = (u64, u64, usize)> {
        self.steps.iter().filter_map(|step| match step.what {
            What::Alloc {
                address,
                size,
                device,
            } => Some((address, size, device)),
            _ => None,
        })
    }
}

impl State {
    pub(crate) fn exec(&mut self, exec: CUgraphExec) -> Cu<&mut Exec> {
        self.execs
            .get_mut(&id(exec))
            .ok_or(Fail(CUDA_ERROR_INVALID_VALUE))
    }

    /// A graph's nodes in an order that its edges allow: of those that may come next, the oldest.
    fn in_order(&mut self, graph: u64) -> Cu<Vec<u64>> {
        let nodes = self.graph(graph)?.nodes.clone();
        let mut order: Vec<u64> = Vec::with_capacity(nodes.len());
        let mut left = nodes;
        while !left.is_empty() {
            let ready = left.iter().position(|node| {
                let after = self
                    .nodes
                    .get(node)
                    .map(|node| node.after.as_slice())
                    .unwrap_or_default();
                after.iter().all(|before| order.contains(before))
            });
            order.push(left.remove(ready.ok_or(Fail(CUDA_ERROR_INVALID_VALUE))?));
        }
        Ok(order)
    }

    fn lay_out(&mut self, graph: u64, steps: &mut Vec<Step>) -> Cu {
        for node in self.in_order(graph)? {
            let what = self.node(node)?.what.clone();
            match what {
                What::Child(child) => self.lay_out(child, steps)?,
                what => steps.push(Step {
                    node,
                    what,
                    enabled: true,
                }),
            }
        }
        Ok(())
    }

    fn topology(&mut self, graph: u64) -> Cu<Vec<(CUgraphNodeType, Vec<usize>)>> {
        let nodes = self.graph(graph)?.nodes.clone();
        let place = |node: &u64| {
            nodes
                .iter()
                .position(|other| other == node)
                .unwrap_or(usize::MAX)
        };
        let describe = |node: &u64| {
            let node = self.nodes.get(node)?;
            let mut after: Vec<usize> = node.after.iter().map(place).collect();
            after.sort_unstable();
            Some((node.what.kind(), after))
        };
        Ok(nodes.iter().filter_map(describe).collect())
    }

    fn instantiate(&mut self, graph: u64, flags: c_ulonglong) -> Cu<u64> {
        let mut steps = Vec::new();
        self.lay_out(graph, &mut steps)?;
        let topology = self.topology(graph)?;
        let serial = self.new_serial();
        let exec = self.new_handle();
        self.execs.insert(
            exec,
            Exec {
                steps,
                flags,
                serial,
                topology,
            },
        );
        Ok(exec)
    }

    /// Makes room for the memory that an instance brings to life; what a former launch left is freed or an error.
    fn prepare(&mut self, exec: CUgraphExec, launch: bool) -> Cu {
        let auto_free = u64::from(CUDA_GRAPH_INSTANTIATE_FLAG_AUTO_FREE_ON_LAUNCH);
        let auto_free = self.exec(exec)?.flags & auto_free != 0;
        let memory: Vec<(u64, u64, usize)> = self.exec(exec)?.memory().collect();
        for &(address, ..) in &memory {
            let live = self
                .regions
                .find(address)
                .is_some_and(|region| region.kind == Kind::Graph { live: true });
            if live && launch {
                ensure(auto_free)?;
                self.graph_memory(address, false)?;
            }
        }
        for device in 0..self.devices.len() {
            let sizes = memory
                .iter()
                .filter(|part| part.2 == device)
                .map(|part| part.1);
            let more = sizes.sum();
            if more > 0 {
                self.reserve_graph_memory(device, more)?;
            }
        }
        Ok(())
    }

    /// The work of a launch. Records count up now, so that waits that follow know which one to wait for.
    fn works(&mut self, exec: CUgraphExec) -> Cu<Vec<Work>> {
        let steps = self.exec(exec)?.steps.clone();
        let mut works = Vec::with_capacity(steps.len());
        for step in steps.into_iter().filter(|step| step.enabled) {
            match step.what {
                What::Kernel(call) => works.push(Work::Kernel(call)),
                What::Copy(shape) => works.push(Work::Copy(shape)),
                What::Fill(fill) => works.push(Work::Fill(fill)),
                What::Host(call) => works.push(Work::Host(call)),
                What::Record(event) => {
                    let known = self.event(handle(event))?;
                    known.records += 1;
                    works.push(Work::Record {
                        event,
                        number: known.records,
                    });
                }
                What::Await(event) => {
                    let number = self.event(handle(event))?.records;
                    works.push(Work::Await { event, number });
                }
                What::Alloc { address, .. } => works.push(Work::GraphMemory {
                    address,
                    live: true,
                }),
                What::Free(address) => works.push(Work::GraphMemory {
                    address,
                    live: false,
                }),
                What::Values(list) => works.extend(list.into_iter().map(Work::Value)),
                What::Busy(duration) => works.push(Work::Busy(duration)),
                What::Empty | What::Child(_) => {}
            }
        }
        Ok(works)
    }
}

pub(crate) fn instantiate(
    out: Out<CUgraphExec>,
    graph: CUgraph,
    error_node: Out<CUgraphNode>,
    log: Out<c_char>,
    log_size: usize,
) -> Cu {
    ensure(!out.is_null())?;
    put_optional(error_node, core::ptr::null_mut())?;
    if log_size > 0 {
        log.write(0);
    }
    let exec = lock().instantiate(id(graph), 0)?;
    put(out, handle(exec))
}

pub(crate) fn instantiate_with_flags(
    out: Out<CUgraphExec>,
    graph: CUgraph,
    flags: c_ulonglong,
) -> Cu {
    ensure(!out.is_null() && flags & !u64::from(FLAGS) == 0)?;
    // Upload needs a stream to happen in, which only the call with parameters has.
    ensure(flags & u64::from(CUDA_GRAPH_INSTANTIATE_FLAG_UPLOAD) == 0)?;
    let exec = lock().instantiate(id(graph), flags)?;
    put(out, handle(exec))
}

pub(crate) fn instantiate_with_params(
    out: Out<CUgraphExec>,
    graph: CUgraph,
    params: Out<CUDA_GRAPH_INSTANTIATE_PARAMS>,
) -> Cu {
    let mut p = params.read().ok_or(Fail(CUDA_ERROR_INVALID_VALUE))?;
    ensure(!out.is_null() && p.flags & !u64::from(FLAGS) == 0)?;
    p.hErrNode_out = core::ptr::null_mut();
    p.result_out = CUDA_GRAPH_INSTANTIATE_ERROR;
    params.write(p);
    let exec = lock().instantiate(id(graph), p.flags)?;
    if p.flags & u64::from(CUDA_GRAPH_INSTANTIATE_FLAG_UPLOAD) != 0 {
        upload(handle(exec), p.hUploadStream)?;
    }
    p.result_out = CUDA_GRAPH_INSTANTIATE_SUCCESS;
    params.write(p);
    put(out, handle(exec))
}

pub(crate) fn destroy(exec: CUgraphExec) -> Cu {
    let mut state = lock();
    state.exec(exec)?;
    state.execs.remove(&id(exec));
    Ok(())
}

pub(crate) fn get_flags(exec: CUgraphExec, out: Out<cuuint64_t>) -> Cu {
    let flags = lock().exec(exec)?.flags;
    put(out, flags)
}

pub(crate) fn get_id(exec: CUgraphExec, out: Out<c_uint>) -> Cu {
    let serial = lock().exec(exec)?.serial;
    put(out, serial as c_uint)
}

/// `cuGraphUpload`: reserves what the launch will need.
pub(crate) fn upload(exec: CUgraphExec, stream: CUstream) -> Cu {
    stream::resolve(stream)?;
    lock().prepare(exec, false)
}

pub(crate) fn launch(exec: CUgraphExec, stream: CUstream) -> Cu {
    let stream = stream::resolve(stream)?;
    let works = {
        let mut state = lock();
        let cost = state.exec(exec)?.plain_cost();
        match cost {
            Some(cost) => vec![Work::Busy(cost)],
            None => {
                state.prepare(exec, true)?;
                state.works(exec)?
            }
        }
    };
    works
        .into_iter()
        .try_for_each(|work| queue::submit(stream, work))
}

pub(crate) fn update(
    exec: CUgraphExec,
    graph: CUgraph,
    error_node: Out<CUgraphNode>,
    result: Out<CUgraphExecUpdateResult>,
) -> Cu {
    let mut info: CUgraphExecUpdateResultInfo = raw::zeroed();
    let done = update_v2(exec, graph, Out::of(&mut info));
    put_optional(error_node, info.errorNode)?;
    put_optional(result, info.result)?;
    done
}

/// `cuGraphExecUpdate_v2`: nodes pair up by the order in which they were added.
pub(crate) fn update_v2(
    exec: CUgraphExec,
    graph: CUgraph,
    out: Out<CUgraphExecUpdateResultInfo>,
) -> Cu {
    ensure(!out.is_null())?;
    let mut state = lock();
    let old = state.exec(exec)?.topology.clone();
    let new = state.topology(id(graph))?;
    let origins = state.graph(id(graph))?.nodes.clone();
    let mut info: CUgraphExecUpdateResultInfo = raw::zeroed();
    let differs = |index: &usize| old.get(*index) != new.get(*index);
    let wrong = (0..new.len()).find(differs);
    if old.len() != new.len() || wrong.is_some() {
        let kind = |list: &[(CUgraphNodeType, Vec<usize>)]| {
            wrong.and_then(|at| list.get(at).map(|node| node.0))
        };
        let same_count = old.len() == new.len();
        info.result = if same_count && kind(&old) != kind(&new) {
            CU_GRAPH_EXEC_UPDATE_ERROR_NODE_TYPE_CHANGED
        } else {
            CU_GRAPH_EXEC_UPDATE_ERROR_TOPOLOGY_CHANGED
        };
        info.errorNode = handle(wrong.filter(|_| same_count).map_or(0, |at| origins[at]));
        out.write(info);
        return fail(CUDA_ERROR_GRAPH_EXEC_UPDATE_FAILURE);
    }
    let mut steps = Vec::new();
    state.lay_out(id(graph), &mut steps)?;
    let known = state.exec(exec)?;
    ensure_or(
        steps.len() == known.steps.len(),
        CUDA_ERROR_GRAPH_EXEC_UPDATE_FAILURE,
    )?;
    for (step, old) in steps.iter_mut().zip(&known.steps) {
        // The instance keeps answering for the nodes that it was made from.
        step.node = old.node;
        step.enabled = old.enabled;
    }
    known.steps = steps;
    put(out, info)
}

/// Puts new parameters into the step of a node.
fn set(exec: CUgraphExec, node: CUgraphNode, what: What) -> Cu {
    let mut state = lock();
    let known = state.exec(exec)?;
    let step = known.steps.iter_mut().find(|step| step.node == id(node));
    let step = step.ok_or(Fail(CUDA_ERROR_INVALID_VALUE))?;
    ensure(step.what.kind() == what.kind())?;
    step.what = what;
    Ok(())
}

const WRONG: Fail = Fail(CUDA_ERROR_INVALID_VALUE);

pub(crate) fn set_kernel_v1(
    exec: CUgraphExec,
    node: CUgraphNode,
    p: In<CUDA_KERNEL_NODE_PARAMS_v1>,
) -> Cu {
    set(exec, node, nodes::kernel_what(&p.read().ok_or(WRONG)?)?)
}

pub(crate) fn set_kernel(
    exec: CUgraphExec,
    node: CUgraphNode,
    p: In<CUDA_KERNEL_NODE_PARAMS>,
) -> Cu {
    set(exec, node, nodes::kernel_what_v2(&p.read().ok_or(WRONG)?)?)
}

pub(crate) fn set_copy(
    exec: CUgraphExec,
    node: CUgraphNode,
    p: In<CUDA_MEMCPY3D>,
    _context: CUcontext,
) -> Cu {
    set(exec, node, nodes::copy_what(&p.read().ok_or(WRONG)?)?)
}

pub(crate) fn set_fill(
    exec: CUgraphExec,
    node: CUgraphNode,
    p: In<CUDA_MEMSET_NODE_PARAMS>,
    _context: CUcontext,
) -> Cu {
    set(exec, node, nodes::fill_what(&p.read().ok_or(WRONG)?)?)
}

pub(crate) fn set_host(exec: CUgraphExec, node: CUgraphNode, p: In<CUDA_HOST_NODE_PARAMS>) -> Cu {
    set(exec, node, nodes::host_what(&p.read().ok_or(WRONG)?)?)
}

pub(crate) fn set_record(exec: CUgraphExec, node: CUgraphNode, event: CUevent) -> Cu {
    lock().event(event)?;
    set(exec, node, What::Record(id(event)))
}

pub(crate) fn set_await(exec: CUgraphExec, node: CUgraphNode, event: CUevent) -> Cu {
    lock().event(event)?;
    set(exec, node, What::Await(id(event)))
}

pub(crate) fn set_any(exec: CUgraphExec, node: CUgraphNode, params: Out<CUgraphNodeParams>) -> Cu {
    ensure(!params.is_null())?;
    let kind: CUgraphNodeType = raw::read(raw::addr_out(params));
    ensure(!matches!(
        kind,
        CU_GRAPH_NODE_TYPE_MEM_ALLOC | CU_GRAPH_NODE_TYPE_MEM_FREE | CU_GRAPH_NODE_TYPE_GRAPH
    ))?;
    set(exec, node, nodes::any_what(raw::addr_out(params))?)
}

/// `cuGraphExecChildGraphNodeSetParams`: the child's steps take the new graph's parameters, in order.
pub(crate) fn set_child(exec: CUgraphExec, node: CUgraphNode, child: CUgraph) -> Cu {
    let mut state = lock();
    let What::Child(old) = state.node(id(node))?.what else {
        return fail(CUDA_ERROR_INVALID_VALUE);
    };
    let (mut before, mut after) = (Vec::new(), Vec::new());
    state.lay_out(old, &mut before)?;
    state.lay_out(id(child), &mut after)?;
    let same = before.len() == after.len()
        && before
            .iter()
            .zip(&after)
            .all(|(old, new)| old.what.kind() == new.what.kind());
    ensure(same)?;
    let known = state.exec(exec)?;
    for (old, new) in before.iter().zip(after) {
        let step = known.steps.iter_mut().find(|step| step.node == old.node);
        step.ok_or(WRONG)?.what = new.what;
    }
    Ok(())
}

/// Only kernels, memsets and copies can be switched off.
fn switch(exec: CUgraphExec, node: CUgraphNode) -> Cu<bool> {
    let mut state = lock();
    let known = state.exec(exec)?;
    let step = known
        .steps
        .iter()
        .find(|step| step.node == id(node))
        .ok_or(WRONG)?;
    ensure(matches!(
        step.what,
        What::Kernel(_) | What::Fill(_) | What::Copy(_)
    ))?;
    Ok(step.enabled)
}

pub(crate) fn get_enabled(exec: CUgraphExec, node: CUgraphNode, out: Out<c_uint>) -> Cu {
    put(out, c_uint::from(switch(exec, node)?))
}

pub(crate) fn set_enabled(exec: CUgraphExec, node: CUgraphNode, enabled: c_uint) -> Cu {
    switch(exec, node)?;
    let mut state = lock();
    let known = state.exec(exec)?;
    let steps = known.steps.iter_mut().filter(|step| step.node == id(node));
    steps.for_each(|step| step.enabled = enabled != 0);
    Ok(())
}

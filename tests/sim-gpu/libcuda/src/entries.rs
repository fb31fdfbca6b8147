//! Which body answers which exported function, a line each; the functions not named here answer
//! `CUDA_ERROR_NOT_SUPPORTED` by the default made from their row.
//!
//! A name brought in here hides the default of the same name, so a row moves from "not supported" to a body by one
//! line. The compiler checks each body against the row's signature where the export calls it. The `_ptsz` and
//! `_ptds` forms share the body of the plain one: the boundary has noted what stream 0 means.

pub(crate) use crate::exports::defaults::*;

/// `chapter { body = export export ..; }`
macro_rules! bodies {
    ($($chapter:ident { $($body:ident = $($export:ident)+;)* })*) => {
        $($($( pub(crate) use crate::$chapter::$body as $export; )+)*)*
    };
}

bodies! {
    init {
        init = cuInit;
        driver_version = cuDriverGetVersion;
    }
    error {
        name = cuGetErrorName;
        string = cuGetErrorString;
    }
    proc_address {
        get = cuGetProcAddress;
        get_v2 = cuGetProcAddress_v2;
        export_table = cuGetExportTable;
    }
    device {
        get = cuDeviceGet;
        count = cuDeviceGetCount;
        name = cuDeviceGetName;
        uuid = cuDeviceGetUuid cuDeviceGetUuid_v2;
        luid = cuDeviceGetLuid;
        total_mem = cuDeviceTotalMem cuDeviceTotalMem_v2;
        compute_capability = cuDeviceComputeCapability;
        attribute = cuDeviceGetAttribute;
        properties = cuDeviceGetProperties;
        pci_bus_id = cuDeviceGetPCIBusId;
        by_pci_bus_id = cuDeviceGetByPCIBusId;
        exec_affinity_support = cuDeviceGetExecAffinitySupport;
        texture_1d_width = cuDeviceGetTexture1DLinearMaxWidth;
        can_access_peer = cuDeviceCanAccessPeer;
        p2p_attribute = cuDeviceGetP2PAttribute;
    }
    primary {
        retain = cuDevicePrimaryCtxRetain;
        release = cuDevicePrimaryCtxRelease cuDevicePrimaryCtxRelease_v2;
        reset = cuDevicePrimaryCtxReset cuDevicePrimaryCtxReset_v2;
        get_state = cuDevicePrimaryCtxGetState;
        set_flags = cuDevicePrimaryCtxSetFlags cuDevicePrimaryCtxSetFlags_v2;
    }
    context {
        create_v1 = cuCtxCreate;
        create = cuCtxCreate_v2;
        create_v3 = cuCtxCreate_v3;
        create_v4 = cuCtxCreate_v4;
        destroy = cuCtxDestroy cuCtxDestroy_v2;
        attach = cuCtxAttach;
        detach = cuCtxDetach;
        push_current = cuCtxPushCurrent cuCtxPushCurrent_v2;
        pop_current = cuCtxPopCurrent cuCtxPopCurrent_v2;
        set_current = cuCtxSetCurrent;
        get_current = cuCtxGetCurrent;
        get_device = cuCtxGetDevice;
        get_device_of = cuCtxGetDevice_v2;
        get_flags = cuCtxGetFlags;
        set_flags = cuCtxSetFlags;
        get_id = cuCtxGetId;
        get_api_version = cuCtxGetApiVersion;
        get_limit = cuCtxGetLimit;
        set_limit = cuCtxSetLimit;
        get_cache_config = cuCtxGetCacheConfig;
        set_cache_config = cuCtxSetCacheConfig;
        get_shared_config = cuCtxGetSharedMemConfig;
        set_shared_config = cuCtxSetSharedMemConfig;
        priority_range = cuCtxGetStreamPriorityRange;
        exec_affinity = cuCtxGetExecAffinity;
        reset_persisting = cuCtxResetPersistingL2Cache;
        synchronize = cuCtxSynchronize;
        synchronize_of = cuCtxSynchronize_v2;
        flush_remote_writes = cuFlushGPUDirectRDMAWrites;
        enable_peer = cuCtxEnablePeerAccess;
        disable_peer = cuCtxDisablePeerAccess;
    }
    memory {
        alloc = cuMemAlloc cuMemAlloc_v2;
        alloc_pitch = cuMemAllocPitch cuMemAllocPitch_v2;
        alloc_managed = cuMemAllocManaged;
        free = cuMemFree cuMemFree_v2;
        get_info = cuMemGetInfo cuMemGetInfo_v2;
        address_range = cuMemGetAddressRange cuMemGetAddressRange_v2;
    }
    copy {
        any = cuMemcpy cuMemcpy_ptds;
        any_async = cuMemcpyAsync cuMemcpyAsync_ptsz;
        h2d = cuMemcpyHtoD cuMemcpyHtoD_v2 cuMemcpyHtoD_v2_ptds;
        h2d_async = cuMemcpyHtoDAsync cuMemcpyHtoDAsync_v2 cuMemcpyHtoDAsync_v2_ptsz;
        d2h = cuMemcpyDtoH cuMemcpyDtoH_v2 cuMemcpyDtoH_v2_ptds;
        d2h_async = cuMemcpyDtoHAsync cuMemcpyDtoHAsync_v2 cuMemcpyDtoHAsync_v2_ptsz;
        d2d = cuMemcpyDtoD cuMemcpyDtoD_v2 cuMemcpyDtoD_v2_ptds;
        d2d_async = cuMemcpyDtoDAsync cuMemcpyDtoDAsync_v2 cuMemcpyDtoDAsync_v2_ptsz;
        peer = cuMemcpyPeer cuMemcpyPeer_ptds;
        peer_async = cuMemcpyPeerAsync cuMemcpyPeerAsync_ptsz;
        batch = cuMemcpyBatchAsync_v2 cuMemcpyBatchAsync_v2_ptsz;
        batch_v1 = cuMemcpyBatchAsync cuMemcpyBatchAsync_ptsz;
        with_attributes = cuMemcpyWithAttributesAsync cuMemcpyWithAttributesAsync_ptsz;
    }
    memset {
        flat = cuMemsetD8 cuMemsetD8_v2 cuMemsetD8_v2_ptds cuMemsetD16 cuMemsetD16_v2 cuMemsetD16_v2_ptds
            cuMemsetD32 cuMemsetD32_v2 cuMemsetD32_v2_ptds;
        flat_async = cuMemsetD8Async cuMemsetD8Async_ptsz cuMemsetD16Async cuMemsetD16Async_ptsz
            cuMemsetD32Async cuMemsetD32Async_ptsz;
        rows = cuMemsetD2D8 cuMemsetD2D8_v2 cuMemsetD2D8_v2_ptds cuMemsetD2D16 cuMemsetD2D16_v2
            cuMemsetD2D16_v2_ptds cuMemsetD2D32 cuMemsetD2D32_v2 cuMemsetD2D32_v2_ptds;
        rows_async = cuMemsetD2D8Async cuMemsetD2D8Async_ptsz cuMemsetD2D16Async cuMemsetD2D16Async_ptsz
            cuMemsetD2D32Async cuMemsetD2D32Async_ptsz;
    }
    stream {
        create = cuStreamCreate;
        create_with_priority = cuStreamCreateWithPriority;
        destroy = cuStreamDestroy cuStreamDestroy_v2;
        get_priority = cuStreamGetPriority cuStreamGetPriority_ptsz;
        get_flags = cuStreamGetFlags cuStreamGetFlags_ptsz;
        get_id = cuStreamGetId cuStreamGetId_ptsz;
        get_context = cuStreamGetCtx cuStreamGetCtx_ptsz;
        get_context_v2 = cuStreamGetCtx_v2 cuStreamGetCtx_v2_ptsz;
        get_device = cuStreamGetDevice cuStreamGetDevice_ptsz;
        get_attribute = cuStreamGetAttribute cuStreamGetAttribute_ptsz;
        set_attribute = cuStreamSetAttribute cuStreamSetAttribute_ptsz;
        copy_attributes = cuStreamCopyAttributes cuStreamCopyAttributes_ptsz;
        query = cuStreamQuery cuStreamQuery_ptsz;
        synchronize = cuStreamSynchronize cuStreamSynchronize_ptsz;
        wait_event = cuStreamWaitEvent cuStreamWaitEvent_ptsz;
        add_callback = cuStreamAddCallback cuStreamAddCallback_ptsz;
        launch_host = cuLaunchHostFunc cuLaunchHostFunc_ptsz;
        launch_host_v2 = cuLaunchHostFunc_v2 cuLaunchHostFunc_v2_ptsz;
        attach_memory = cuStreamAttachMemAsync cuStreamAttachMemAsync_ptsz;
    }
    event {
        create = cuEventCreate;
        destroy = cuEventDestroy cuEventDestroy_v2;
        record = cuEventRecord cuEventRecord_ptsz;
        record_with_flags = cuEventRecordWithFlags cuEventRecordWithFlags_ptsz;
        query = cuEventQuery;
        synchronize = cuEventSynchronize;
        elapsed = cuEventElapsedTime cuEventElapsedTime_v2;
    }
    value {
        wait_32 = cuStreamWaitValue32 cuStreamWaitValue32_ptsz cuStreamWaitValue32_v2 cuStreamWaitValue32_v2_ptsz;
        wait_64 = cuStreamWaitValue64 cuStreamWaitValue64_ptsz cuStreamWaitValue64_v2 cuStreamWaitValue64_v2_ptsz;
        write_32 = cuStreamWriteValue32 cuStreamWriteValue32_ptsz cuStreamWriteValue32_v2 cuStreamWriteValue32_v2_ptsz;
        write_64 = cuStreamWriteValue64 cuStreamWriteValue64_ptsz cuStreamWriteValue64_v2 cuStreamWriteValue64_v2_ptsz;
        batch = cuStreamBatchMemOp cuStreamBatchMemOp_ptsz cuStreamBatchMemOp_v2 cuStreamBatchMemOp_v2_ptsz;
    }
    module {
        load = cuModuleLoad;
        load_data = cuModuleLoadData cuModuleLoadFatBinary;
        load_data_ex = cuModuleLoadDataEx;
        unload = cuModuleUnload;
        loading_mode = cuModuleGetLoadingMode;
        get_function = cuModuleGetFunction;
        function_count = cuModuleGetFunctionCount;
        enumerate = cuModuleEnumerateFunctions;
        get_global = cuModuleGetGlobal cuModuleGetGlobal_v2;
    }
    library {
        load_data = cuLibraryLoadData;
        load_file = cuLibraryLoadFromFile;
        unload = cuLibraryUnload;
        get_kernel = cuLibraryGetKernel;
        kernel_count = cuLibraryGetKernelCount;
        enumerate = cuLibraryEnumerateKernels;
        get_module = cuLibraryGetModule;
        get_global = cuLibraryGetGlobal;
        get_managed = cuLibraryGetManaged;
        get_unified = cuLibraryGetUnifiedFunction;
        kernel_library = cuKernelGetLibrary;
        get_function = cuKernelGetFunction;
        link_create = cuLinkCreate cuLinkCreate_v2;
        link_add_data = cuLinkAddData cuLinkAddData_v2;
        link_add_file = cuLinkAddFile cuLinkAddFile_v2;
        link_complete = cuLinkComplete;
        link_destroy = cuLinkDestroy;
    }
    function {
        get_attribute = cuFuncGetAttribute;
        set_attribute = cuFuncSetAttribute;
        set_cache = cuFuncSetCacheConfig;
        set_shared_config = cuFuncSetSharedMemConfig;
        get_module = cuFuncGetModule;
        get_name = cuFuncGetName;
        param_info = cuFuncGetParamInfo;
        param_count = cuFuncGetParamCount;
        is_loaded = cuFuncIsLoaded;
        load = cuFuncLoad;
        kernel_get_attribute = cuKernelGetAttribute;
        kernel_set_attribute = cuKernelSetAttribute;
        kernel_set_cache = cuKernelSetCacheConfig;
        kernel_name = cuKernelGetName;
        kernel_param_info = cuKernelGetParamInfo;
        kernel_param_count = cuKernelGetParamCount;
        blocks = cuOccupancyMaxActiveBlocksPerMultiprocessor;
        blocks_with_flags = cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags;
        available_shared = cuOccupancyAvailableDynamicSMemPerBlock;
        potential_block = cuOccupancyMaxPotentialBlockSize;
        potential_block_with_flags = cuOccupancyMaxPotentialBlockSizeWithFlags;
        potential_cluster = cuOccupancyMaxPotentialClusterSize;
        active_clusters = cuOccupancyMaxActiveClusters;
    }
    launch {
        kernel = cuLaunchKernel cuLaunchKernel_ptsz;
        kernel_ex = cuLaunchKernelEx cuLaunchKernelEx_ptsz;
        cooperative = cuLaunchCooperativeKernel cuLaunchCooperativeKernel_ptsz;
        cooperative_multi = cuLaunchCooperativeKernelMultiDevice;
        set_block_shape = cuFuncSetBlockShape;
        set_shared_size = cuFuncSetSharedSize;
        param_set_size = cuParamSetSize;
        param_set_int = cuParamSeti;
        param_set_float = cuParamSetf;
        param_set_bytes = cuParamSetv;
        legacy = cuLaunch;
        legacy_grid = cuLaunchGrid;
        legacy_grid_async = cuLaunchGridAsync;
    }
    host {
        alloc_plain = cuMemAllocHost cuMemAllocHost_v2;
        alloc = cuMemHostAlloc;
        free = cuMemFreeHost;
        register = cuMemHostRegister cuMemHostRegister_v2;
        unregister = cuMemHostUnregister;
        device_pointer = cuMemHostGetDevicePointer cuMemHostGetDevicePointer_v2;
        get_flags = cuMemHostGetFlags;
    }
    pool {
        create = cuMemPoolCreate;
        destroy = cuMemPoolDestroy;
        device_default = cuDeviceGetDefaultMemPool;
        device_get = cuDeviceGetMemPool;
        device_set = cuDeviceSetMemPool;
        location_default = cuMemGetDefaultMemPool;
        location_get = cuMemGetMemPool;
        location_set = cuMemSetMemPool;
        trim = cuMemPoolTrimTo;
        alloc_async = cuMemAllocAsync cuMemAllocAsync_ptsz;
        alloc_from = cuMemAllocFromPoolAsync cuMemAllocFromPoolAsync_ptsz;
        free_async = cuMemFreeAsync cuMemFreeAsync_ptsz;
    }
    pool_settings {
        get_attribute = cuMemPoolGetAttribute;
        set_attribute = cuMemPoolSetAttribute;
        set_access = cuMemPoolSetAccess;
        get_access = cuMemPoolGetAccess;
    }
    pool_share {
        export = cuMemPoolExportToShareableHandle;
        import = cuMemPoolImportFromShareableHandle;
        export_pointer = cuMemPoolExportPointer;
        import_pointer = cuMemPoolImportPointer;
    }
    vmm {
        granularity = cuMemGetAllocationGranularity;
        create = cuMemCreate;
        release = cuMemRelease;
        retain = cuMemRetainAllocationHandle;
        properties = cuMemGetAllocationPropertiesFromHandle;
        reserve = cuMemAddressReserve;
        free_address = cuMemAddressFree;
        map = cuMemMap;
        unmap = cuMemUnmap;
        set_access = cuMemSetAccess;
        get_access = cuMemGetAccess;
        export = cuMemExportToShareableHandle;
        import = cuMemImportFromShareableHandle;
    }
    pointer {
        get = cuPointerGetAttribute;
        get_many = cuPointerGetAttributes;
        set = cuPointerSetAttribute;
        advise = cuMemAdvise;
        advise_v2 = cuMemAdvise_v2;
        prefetch = cuMemPrefetchAsync cuMemPrefetchAsync_ptsz;
        prefetch_v2 = cuMemPrefetchAsync_v2 cuMemPrefetchAsync_v2_ptsz;
        prefetch_batch = cuMemPrefetchBatchAsync cuMemPrefetchBatchAsync_ptsz
            cuMemDiscardAndPrefetchBatchAsync cuMemDiscardAndPrefetchBatchAsync_ptsz;
        discard_batch = cuMemDiscardBatchAsync cuMemDiscardBatchAsync_ptsz;
        range_attribute = cuMemRangeGetAttribute;
        range_attributes = cuMemRangeGetAttributes;
    }
    copy_shapes {
        copy_2d = cuMemcpy2D_v2 cuMemcpy2D_v2_ptds cuMemcpy2DUnaligned_v2 cuMemcpy2DUnaligned_v2_ptds;
        copy_2d_async = cuMemcpy2DAsync_v2 cuMemcpy2DAsync_v2_ptsz;
        copy_2d_v1 = cuMemcpy2D cuMemcpy2DUnaligned;
        copy_2d_async_v1 = cuMemcpy2DAsync;
        copy_3d_v1 = cuMemcpy3D;
        copy_3d_async_v1 = cuMemcpy3DAsync;
        copy_3d = cuMemcpy3D_v2 cuMemcpy3D_v2_ptds;
        copy_3d_async = cuMemcpy3DAsync_v2 cuMemcpy3DAsync_v2_ptsz;
        copy_3d_peer = cuMemcpy3DPeer cuMemcpy3DPeer_ptds;
        copy_3d_peer_async = cuMemcpy3DPeerAsync cuMemcpy3DPeerAsync_ptsz;
        a2a = cuMemcpyAtoA cuMemcpyAtoA_v2 cuMemcpyAtoA_v2_ptds;
        a2d = cuMemcpyAtoD cuMemcpyAtoD_v2 cuMemcpyAtoD_v2_ptds;
        d2a = cuMemcpyDtoA cuMemcpyDtoA_v2 cuMemcpyDtoA_v2_ptds;
        a2h = cuMemcpyAtoH cuMemcpyAtoH_v2 cuMemcpyAtoH_v2_ptds;
        h2a = cuMemcpyHtoA cuMemcpyHtoA_v2 cuMemcpyHtoA_v2_ptds;
        a2h_async = cuMemcpyAtoHAsync cuMemcpyAtoHAsync_v2 cuMemcpyAtoHAsync_v2_ptsz;
        h2a_async = cuMemcpyHtoAAsync cuMemcpyHtoAAsync_v2 cuMemcpyHtoAAsync_v2_ptsz;
        batch_3d = cuMemcpy3DBatchAsync_v2 cuMemcpy3DBatchAsync_v2_ptsz;
        batch_3d_v1 = cuMemcpy3DBatchAsync cuMemcpy3DBatchAsync_ptsz;
        with_attributes_3d = cuMemcpy3DWithAttributesAsync cuMemcpy3DWithAttributesAsync_ptsz;
    }
    array {
        create = cuArrayCreate_v2;
        create_v1 = cuArrayCreate;
        create_3d = cuArray3DCreate_v2;
        create_3d_v1 = cuArray3DCreate;
        destroy = cuArrayDestroy;
        descriptor = cuArrayGetDescriptor_v2;
        descriptor_v1 = cuArrayGetDescriptor;
        descriptor_3d = cuArray3DGetDescriptor_v2;
        descriptor_3d_v1 = cuArray3DGetDescriptor;
        requirements = cuArrayGetMemoryRequirements;
        plane = cuArrayGetPlane;
        mipmap_create = cuMipmappedArrayCreate;
        mipmap_destroy = cuMipmappedArrayDestroy;
        mipmap_level = cuMipmappedArrayGetLevel;
        mipmap_requirements = cuMipmappedArrayGetMemoryRequirements;
    }
    graph {
        create = cuGraphCreate;
        destroy = cuGraphDestroy;
        clone = cuGraphClone;
        get_id = cuGraphGetId;
        find_in_clone = cuGraphNodeFindInClone;
        get_type = cuGraphNodeGetType;
        containing = cuGraphNodeGetContainingGraph;
        local_id = cuGraphNodeGetLocalId;
        tools_id = cuGraphNodeGetToolsId;
        destroy_node = cuGraphDestroyNode;
    }
    graph_objects {
        object_create = cuUserObjectCreate;
        object_retain = cuUserObjectRetain;
        object_release = cuUserObjectRelease;
        retain_object = cuGraphRetainUserObject;
        release_object = cuGraphReleaseUserObject;
        device_memory = cuDeviceGetGraphMemAttribute;
        set_device_memory = cuDeviceSetGraphMemAttribute;
        trim_device_memory = cuDeviceGraphMemTrim;
    }
    graph_edges {
        get_nodes = cuGraphGetNodes;
        get_roots = cuGraphGetRootNodes;
        get_edges = cuGraphGetEdges;
        get_edges_v2 = cuGraphGetEdges_v2;
        get_dependencies = cuGraphNodeGetDependencies;
        get_dependencies_v2 = cuGraphNodeGetDependencies_v2;
        get_dependents = cuGraphNodeGetDependentNodes;
        get_dependents_v2 = cuGraphNodeGetDependentNodes_v2;
        add_dependencies = cuGraphAddDependencies;
        add_dependencies_v2 = cuGraphAddDependencies_v2;
        remove_dependencies = cuGraphRemoveDependencies;
        remove_dependencies_v2 = cuGraphRemoveDependencies_v2;
    }
    graph_nodes {
        add_kernel_v1 = cuGraphAddKernelNode;
        add_kernel = cuGraphAddKernelNode_v2;
        add_copy = cuGraphAddMemcpyNode;
        add_fill = cuGraphAddMemsetNode;
        add_host = cuGraphAddHostNode;
        add_child = cuGraphAddChildGraphNode;
        add_empty = cuGraphAddEmptyNode;
        add_record = cuGraphAddEventRecordNode;
        add_await = cuGraphAddEventWaitNode;
        add_alloc = cuGraphAddMemAllocNode;
        add_free = cuGraphAddMemFreeNode;
        add_any_v1 = cuGraphAddNode;
        add_any = cuGraphAddNode_v2 cuGraphAddNode_v3;
    }
    graph_params {
        get_kernel_v1 = cuGraphKernelNodeGetParams;
        get_kernel = cuGraphKernelNodeGetParams_v2;
        get_copy = cuGraphMemcpyNodeGetParams;
        get_fill = cuGraphMemsetNodeGetParams;
        get_host = cuGraphHostNodeGetParams;
        get_child = cuGraphChildGraphNodeGetGraph;
        get_record = cuGraphEventRecordNodeGetEvent;
        get_await = cuGraphEventWaitNodeGetEvent;
        get_alloc = cuGraphMemAllocNodeGetParams;
        get_free = cuGraphMemFreeNodeGetParams;
        get_any = cuGraphNodeGetParams;
        set_kernel_v1 = cuGraphKernelNodeSetParams;
        set_kernel = cuGraphKernelNodeSetParams_v2;
        set_copy = cuGraphMemcpyNodeSetParams;
        set_fill = cuGraphMemsetNodeSetParams;
        set_host = cuGraphHostNodeSetParams;
        set_record = cuGraphEventRecordNodeSetEvent;
        set_await = cuGraphEventWaitNodeSetEvent;
        set_any = cuGraphNodeSetParams cuGraphNodeSetParams_v2;
        get_attribute = cuGraphKernelNodeGetAttribute;
        set_attribute = cuGraphKernelNodeSetAttribute;
        copy_attributes = cuGraphKernelNodeCopyAttributes;
    }
    graph_exec {
        instantiate = cuGraphInstantiate cuGraphInstantiate_v2;
        instantiate_with_flags = cuGraphInstantiateWithFlags;
        instantiate_with_params = cuGraphInstantiateWithParams cuGraphInstantiateWithParams_ptsz;
        destroy = cuGraphExecDestroy;
        get_flags = cuGraphExecGetFlags;
        get_id = cuGraphExecGetId;
        upload = cuGraphUpload cuGraphUpload_ptsz;
        launch = cuGraphLaunch cuGraphLaunch_ptsz;
        update = cuGraphExecUpdate;
        update_v2 = cuGraphExecUpdate_v2;
        set_kernel_v1 = cuGraphExecKernelNodeSetParams;
        set_kernel = cuGraphExecKernelNodeSetParams_v2;
        set_copy = cuGraphExecMemcpyNodeSetParams;
        set_fill = cuGraphExecMemsetNodeSetParams;
        set_host = cuGraphExecHostNodeSetParams;
        set_record = cuGraphExecEventRecordNodeSetEvent;
        set_await = cuGraphExecEventWaitNodeSetEvent;
        set_any = cuGraphExecNodeSetParams;
        set_child = cuGraphExecChildGraphNodeSetParams;
        get_enabled = cuGraphNodeGetEnabled;
        set_enabled = cuGraphNodeSetEnabled;
    }
    capture {
        begin = cuStreamBeginCapture_v2 cuStreamBeginCapture_v2_ptsz;
        begin_v1 = cuStreamBeginCapture cuStreamBeginCapture_ptsz;
        begin_to_graph = cuStreamBeginCaptureToGraph cuStreamBeginCaptureToGraph_ptsz;
        end = cuStreamEndCapture cuStreamEndCapture_ptsz;
    }
    capture_info {
        is_capturing = cuStreamIsCapturing cuStreamIsCapturing_ptsz;
        info = cuStreamGetCaptureInfo cuStreamGetCaptureInfo_ptsz;
        info_v2 = cuStreamGetCaptureInfo_v2 cuStreamGetCaptureInfo_v2_ptsz;
        info_v3 = cuStreamGetCaptureInfo_v3 cuStreamGetCaptureInfo_v3_ptsz;
        set_dependencies = cuStreamUpdateCaptureDependencies cuStreamUpdateCaptureDependencies_ptsz;
        set_dependencies_v2 = cuStreamUpdateCaptureDependencies_v2 cuStreamUpdateCaptureDependencies_v2_ptsz;
        exchange_mode = cuThreadExchangeStreamCaptureMode;
    }
    ipc {
        get_memory = cuIpcGetMemHandle;
        open_memory = cuIpcOpenMemHandle cuIpcOpenMemHandle_v2;
        close_memory = cuIpcCloseMemHandle;
        get_event = cuIpcGetEventHandle;
        open_event = cuIpcOpenEventHandle;
    }
}

/*
 * cu_graph.c: graphs and their executable form. A CUgraphExec has copies of all work, so it needs
 * neither the graph nor what the caller captured from.
 */
#include <stdlib.h>
#include <string.h>

#include "driver/graph.h"

/* ---- sets of nodes -------------------------------------------------------------------------- */

CUresult graph_nodes_add(front_nodes *set, CUgraphNode node)
{
    return graph_nodes_unite(set, &(front_nodes){&node, 1, 1});
}

CUresult graph_nodes_unite(front_nodes *set, const front_nodes *other)
{
    if (set->count + other->count > set->capacity) {
        size_t capacity = 2 * (set->count + other->count);
        CUgraphNode *grown = realloc(set->items, capacity * sizeof(CUgraphNode));
        if (!grown)
            return CUDA_ERROR_OUT_OF_MEMORY;
        set->items = grown;
        set->capacity = capacity;
    }
    size_t before = set->count;
    for (size_t i = 0; i < other->count; i++) {
        bool present = false;
        for (size_t k = 0; k < before && !present; k++)
            present = set->items[k] == other->items[i];
        if (!present)
            set->items[set->count++] = other->items[i];
    }
    return CUDA_SUCCESS;
}

void graph_nodes_clear(front_nodes *set)
{
    free(set->items);
    *set = (front_nodes){0};
}

/* ---- nodes and graphs ----------------------------------------------------------------------- */

static void release_node(front_object *object)
{
    CUgraphNode node = (CUgraphNode)object;
    graph_nodes_clear(&node->after);
    free(node);
}

static void release_graph(front_object *object)
{
    CUgraph graph = (CUgraph)object;
    for (size_t i = 0; i < graph->nodes.count; i++) {
        front_remove(graph->nodes.items[i], FRONT_GRAPH_NODE);
        release_node(&graph->nodes.items[i]->object);
    }
    graph_nodes_clear(&graph->nodes);
    free(graph);
}

CUgraph graph_create(CUcontext context, bool capturing)
{
    CUgraph graph = calloc(1, sizeof *graph);
    if (!graph)
        return NULL;
    graph->object.kind = FRONT_GRAPH;
    graph->object.context = context;
    graph->object.release = release_graph;
    graph->capturing = capturing;
    front_add(&graph->object);
    return graph;
}

void graph_destroy(CUgraph graph)
{
    if (front_remove(graph, FRONT_GRAPH))
        release_graph(&graph->object);
}

CUresult graph_append(CUgraphNode *out, CUgraph graph, const graph_work *work,
                      const front_nodes *after)
{
    *out = NULL;
    CUgraphNode node = calloc(1, sizeof *node + work->bytes);
    if (!node)
        return CUDA_ERROR_OUT_OF_MEMORY;
    node->object.kind = FRONT_GRAPH_NODE;
    node->object.context = graph->object.context;
    node->object.release = release_node;
    node->work = *work;
    node->work.arguments = memcpy(node->copy, work->arguments, work->bytes);
    CUresult result = graph_nodes_unite(&node->after, after);
    if (result == CUDA_SUCCESS)
        result = graph_nodes_add(&graph->nodes, node);
    if (result != CUDA_SUCCESS) {
        release_node(&node->object);
        return result;
    }
    front_add(&node->object);
    *out = node;
    return CUDA_SUCCESS;
}

/* From the last node back to the first: a node's successors are all behind it. */
bool graph_is_joined(CUgraph graph, const front_nodes *frontier)
{
    for (size_t i = 0; i < graph->nodes.count; i++)
        graph->nodes.items[i]->reached = false;
    for (size_t i = 0; i < frontier->count; i++)
        frontier->items[i]->reached = true;
    for (size_t i = graph->nodes.count; i-- > 0;) {
        CUgraphNode node = graph->nodes.items[i];
        if (!node->reached)
            return false;
        for (size_t k = 0; k < node->after.count; k++)
            node->after.items[k]->reached = true;
    }
    return true;
}

CUresult CUDAAPI cuGraphCreate(CUgraph *phGraph, unsigned int flags)
{
    CUcontext context;
    FRONT_TRY(front_current(&context));
    if (!phGraph || flags != 0)
        return CUDA_ERROR_INVALID_VALUE;
    *phGraph = graph_create(context, false);
    return *phGraph ? CUDA_SUCCESS : CUDA_ERROR_OUT_OF_MEMORY;
}

CUresult CUDAAPI cuGraphDestroy(CUgraph hGraph)
{
    if (!front_initialized())
        return CUDA_ERROR_NOT_INITIALIZED;
    if (!front_is(hGraph, FRONT_GRAPH) || hGraph->capturing)
        return CUDA_ERROR_INVALID_VALUE;
    graph_destroy(hGraph);
    return CUDA_SUCCESS;
}

CUresult CUDAAPI cuGraphGetNodes(CUgraph hGraph, CUgraphNode *nodes, size_t *numNodes)
{
    if (!front_initialized())
        return CUDA_ERROR_NOT_INITIALIZED;
    if (!front_is(hGraph, FRONT_GRAPH) || !numNodes)
        return CUDA_ERROR_INVALID_VALUE;
    const front_nodes *all = &hGraph->nodes;
    if (!nodes) {
        *numNodes = all->count;
        return CUDA_SUCCESS;
    }
    for (size_t i = 0; i < *numNodes; i++)
        nodes[i] = i < all->count ? all->items[i] : NULL;
    if (*numNodes > all->count)
        *numNodes = all->count;
    return CUDA_SUCCESS;
}

CUresult CUDAAPI cuGraphNodeGetType(CUgraphNode hNode, CUgraphNodeType *type)
{
    if (!front_initialized())
        return CUDA_ERROR_NOT_INITIALIZED;
    if (!front_is(hNode, FRONT_GRAPH_NODE) || !type)
        return CUDA_ERROR_INVALID_VALUE;
    *type = hNode->work.kind->type;
    return CUDA_SUCCESS;
}

/* ---- executable graphs ---------------------------------------------------------------------- */

struct CUgraphExec_st {
    front_object object;
    size_t count;
    graph_work works[]; /* with copies of the arguments */
};

static void release_exec(front_object *object)
{
    CUgraphExec exec = (CUgraphExec)object;
    for (size_t i = 0; i < exec->count; i++)
        free(exec->works[i].arguments);
    free(exec);
}

static CUresult instantiate(CUgraphExec *out, CUgraph graph)
{
    size_t count = graph->nodes.count;
    CUgraphExec exec = calloc(1, sizeof *exec + count * sizeof exec->works[0]);
    if (!exec)
        return CUDA_ERROR_OUT_OF_MEMORY;
    exec->object.kind = FRONT_GRAPH_EXEC;
    exec->object.context = graph->object.context;
    exec->object.release = release_exec;
    for (; exec->count < count; exec->count++) {
        graph_work *work = &exec->works[exec->count];
        *work = graph->nodes.items[exec->count]->work;
        void *copy = malloc(work->bytes);
        if (!copy) {
            release_exec(&exec->object);
            return CUDA_ERROR_OUT_OF_MEMORY;
        }
        work->arguments = memcpy(copy, work->arguments, work->bytes);
    }
    front_add(&exec->object);
    *out = exec;
    return CUDA_SUCCESS;
}

/* No node allocates memory and all priorities are one, so two of the flags ask for nothing. */
static CUresult check_flags(unsigned long long flags)
{
    if (flags & CUDA_GRAPH_INSTANTIATE_FLAG_DEVICE_LAUNCH)
        return CUDA_ERROR_NOT_SUPPORTED;
    unsigned long long known = CUDA_GRAPH_INSTANTIATE_FLAG_AUTO_FREE_ON_LAUNCH |
                               CUDA_GRAPH_INSTANTIATE_FLAG_USE_NODE_PRIORITY;
    return flags & ~known ? CUDA_ERROR_INVALID_VALUE : CUDA_SUCCESS;
}

CUresult CUDAAPI cuGraphInstantiateWithFlags(CUgraphExec *phGraphExec, CUgraph hGraph,
                                             unsigned long long flags)
{
    if (!front_initialized())
        return CUDA_ERROR_NOT_INITIALIZED;
    if (!phGraphExec)
        return CUDA_ERROR_INVALID_VALUE;
    *phGraphExec = NULL;
    if (!front_is(hGraph, FRONT_GRAPH) || hGraph->capturing)
        return CUDA_ERROR_INVALID_VALUE;
    FRONT_TRY(check_flags(flags));
    return instantiate(phGraphExec, hGraph);
}

CUresult CUDAAPI cuGraphInstantiate_v2(CUgraphExec *phGraphExec, CUgraph hGraph,
                                       CUgraphNode *phErrorNode, char *logBuffer, size_t bufferSize)
{
    if (phErrorNode)
        *phErrorNode = NULL;
    if (logBuffer && bufferSize)
        logBuffer[0] = '\0';
    return cuGraphInstantiateWithFlags(phGraphExec, hGraph, 0);
}

CUresult CUDAAPI cuGraphInstantiateWithParams(CUgraphExec *phGraphExec, CUgraph hGraph,
                                              CUDA_GRAPH_INSTANTIATE_PARAMS *instantiateParams)
{
    if (!instantiateParams)
        return CUDA_ERROR_INVALID_VALUE;
    CUDA_GRAPH_INSTANTIATE_PARAMS *p = instantiateParams;
    unsigned long long upload = p->flags & CUDA_GRAPH_INSTANTIATE_FLAG_UPLOAD;
    p->hErrNode_out = NULL;
    p->result_out = CUDA_GRAPH_INSTANTIATE_ERROR;
    FRONT_TRY(cuGraphInstantiateWithFlags(phGraphExec, hGraph, p->flags & ~upload));
    if (upload) {
        CUresult result = cuGraphUpload(*phGraphExec, p->hUploadStream);
        if (result != CUDA_SUCCESS) {
            cuGraphExecDestroy(*phGraphExec);
            *phGraphExec = NULL;
            return result;
        }
    }
    p->result_out = CUDA_GRAPH_INSTANTIATE_SUCCESS;
    return CUDA_SUCCESS;
}

static CUresult check_exec(CUcontext *out, CUgraphExec exec, CUstream stream)
{
    FRONT_TRY(front_stream_context(out, stream));
    if (!front_is(exec, FRONT_GRAPH_EXEC))
        return CUDA_ERROR_INVALID_VALUE;
    return exec->object.context == *out ? CUDA_SUCCESS : CUDA_ERROR_INVALID_CONTEXT;
}

/* All is where it runs already. */
CUresult CUDAAPI cuGraphUpload(CUgraphExec hGraphExec, CUstream hStream)
{
    CUcontext context;
    bool skip;
    FRONT_TRY(check_exec(&context, hGraphExec, hStream));
    FRONT_TRY(capture_refuse_stream(hStream, context));
    return front_check_enqueue(context, &skip);
}

/* In a capturing stream the graph that is captured takes copies of the nodes. */
CUresult CUDAAPI cuGraphLaunch(CUgraphExec hGraphExec, CUstream hStream)
{
    CUcontext context;
    bool skip;
    FRONT_TRY(check_exec(&context, hGraphExec, hStream));
    FRONT_TRY(front_check_enqueue(context, &skip));
    for (size_t i = 0; i < hGraphExec->count; i++)
        FRONT_TRY(graph_enqueue(hStream, &hGraphExec->works[i]));
    return CUDA_SUCCESS;
}

CUresult CUDAAPI cuGraphExecDestroy(CUgraphExec hGraphExec)
{
    if (!front_initialized())
        return CUDA_ERROR_NOT_INITIALIZED;
    if (!front_remove(hGraphExec, FRONT_GRAPH_EXEC))
        return CUDA_ERROR_INVALID_VALUE;
    release_exec(&hGraphExec->object);
    return CUDA_SUCCESS;
}

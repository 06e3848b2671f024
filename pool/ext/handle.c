/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * handle.c - objects that are pickled once, into a block that all workers map.
 *
 * The problem: what many tasks need is to be sent once, and to be there once, whatever it is.
 *
 * The form: a block of the arena that holds what a message would (message.h), with places counted from `base`, so that
 * the block can be copied to another arena as it is:
 *
 *     +--------+-----------+-----------+-- ... --+--------+-------+
 *     | header | buffer 0  | buffer 1  |         | stream | table |
 *     +--------+-----------+-----------+-- ... --+--------+-------+
 *              ^ base
 *
 * It is sent as a read-only block of the user's (BUFFER_SHARED), so who holds it is known by holder, as with any other.
 * Who unpacks it gets the buffers as private pages, all of them with one mapping, or read-only in place.
 *
 * `live` is for those who keep what they have unpacked: the owner of the arena clears it when no handle is left in its
 * process, and wakes the workers that hold the block. A worker looks at it when a task has ended and when it is idle.
 * The word is the truth, the wake only makes it quick.
 */
#include "handle.h"

#include <string.h>

#include <shoal/killpoint.h>

#include "engine.h"
#include "worker.h"

struct header {
    uint64_t live;
    uint64_t stream_at; /* from base */
    uint64_t stream_bytes;
    uint64_t buffers_end;
};

#define BASE 64u
_Static_assert(sizeof(struct header) <= BASE && BASE % BUFFER_ALIGN == 0, "buffers keep their alignment");

/* ---- packing ---- */

/* The message becomes a block: new reference, NULL with an exception. */
static struct block *pack_message(struct module_state *state, struct outgoing *out)
{
    int64_t stream_bytes = outgoing_seal(out);
    if (stream_bytes < 0)
        return NULL;
    uint64_t bytes = outgoing_block_bytes(out, (uint64_t)stream_bytes);
    struct block *block = block_allocate(state, BASE + bytes, BLOCK_READ_ONLY);
    if (block == NULL)
        return NULL;
    block->in_hand = PyThread_get_thread_ident();
    struct header header = {.live = 1, .stream_bytes = (uint64_t)stream_bytes};
    outgoing_write(out, block->address + BASE, 0, header.stream_bytes, &header.stream_at);
    header.buffers_end = header.stream_at;
    memset(block->address, 0, BASE);
    memcpy(block->address, &header, sizeof header);
    block->packed = block->frozen = true;
    return block;
}

static PyObject *pack(PyObject *module, PyObject *object)
{
    struct module_state *state = PyModule_GetState(module);
    struct home *home = home_get(state);
    struct shoal_encoder *encoder = home == NULL ? NULL : shoal_encoder_new(state->pickle);
    if (encoder == NULL)
        return NULL;
    struct outgoing out;
    outgoing_begin(&out, state, home, NULL, 0);
    out.self_contained = true;
    struct block *block = NULL;
    if (outgoing_section(&out, encoder, &object, 1) >= 0)
        block = pack_message(state, &out);
    outgoing_clear(&out);
    shoal_encoder_free(encoder);
    SHOAL_KILL_POINT("share: packed");
    return (PyObject *)block;
}

/* Something in it lies in the arena already, or has a handle of its own: that is to go as it is. */
static bool has_shared(const struct outgoing *out)
{
    for (size_t i = 0; i < out->taken_count; i++) {
        if (out->taken[i].kind == BUFFER_SHARED)
            return true;
    }
    return false;
}

#ifdef SHOAL_KILL_POINTS
static bool kill_first(struct engine *engine)
{
    return engine->workers[0].peer.pidfd >= 0 && shoal_peer_signal(&engine->workers[0].peer, SIGKILL) >= 0;
}
#endif

PyObject *handle_carry(struct engine *engine, PyObject *object)
{
    struct module_state *state = engine->state;
    struct shoal_encoder *encoder = state->make_carried == NULL ? NULL : shoal_encoder_new(state->pickle);
    PyObject *carried = NULL;
    if (encoder != NULL) {
        struct outgoing out;
        outgoing_begin(&out, state, engine->home, NULL, 0);
        out.inheritance = engine_inheritance(engine);
        out.own_reducers_only = true;
        struct block *block = NULL;
        if (outgoing_section(&out, encoder, &object, 1) >= 0 && !has_shared(&out) &&
            outgoing_block_bytes(&out, shoal_sink_used(&out.sink)) >= HANDLE_CARRY_MIN)
            block = pack_message(state, &out);
        outgoing_clear(&out);
        shoal_encoder_free(encoder);
        if (block != NULL)
            carried = PyObject_CallOneArg(state->make_carried, (PyObject *)block);
        SHOAL_PARENT_POINT("carry: packed", kill_first(engine));
        Py_XDECREF(block);
    }
    PyErr_Clear();
    return carried != NULL ? carried : Py_NewRef(Py_None);
}

static struct block *copy_block(struct module_state *state, const uint8_t *start, uint64_t bytes)
{
    if (bytes < BASE) {
        raise_damaged(state, "this is no shared object");
        return NULL;
    }
    struct block *copy = block_allocate(state, bytes, BLOCK_READ_ONLY);
    if (copy == NULL)
        return NULL;
    copy->in_hand = PyThread_get_thread_ident();
    Py_BEGIN_ALLOW_THREADS
    memcpy(copy->address, start, bytes);
    Py_END_ALLOW_THREADS
    uint64_t live = 1;
    memcpy(copy->address, &live, sizeof live);
    copy->packed = copy->frozen = true;
    return copy;
}

struct block *handle_local(struct module_state *state, struct block *block)
{
    if (block->local == NULL) {
        struct block *copy = copy_block(state, block->address, block->size_bytes);
        if (copy == NULL)
            PyErr_Clear();
        else if (block->local != NULL) /* another thread was faster */
            Py_DECREF(copy);
        else
            block->local = copy;
        if (block->local != NULL)
            block->local->in_hand = 0;
    }
    return block->local;
}

/* ---- unpacking ---- */

struct giver {
    struct module_state *state;
    struct block *block;
    const uint8_t *base, *table;
    struct header header;
    uint32_t buffers;
    bool readonly;
    struct block *pages; /* private ones, of all buffers; made when first asked for; strong */
};

static struct home *home_of(const struct module_state *state, const struct block *block)
{
    if (block->home != NULL)
        return block->home;
    return state->serving != NULL ? state->serving->home : NULL;
}

static int make_pages(struct giver *giver)
{
    struct home *home = home_of(giver->state, giver->block);
    if (home == NULL)
        return raise_damaged(NULL, "its memory is not there");
    uint64_t start = giver->block->start + (uint64_t)(giver->base - giver->block->address);
    giver->pages = (struct block *)block_private(giver->state, home, giver->block->offset, start,
                                                 giver->header.buffers_end);
    if (giver->pages == NULL)
        return -1;
    giver->pages->under = (struct block *)Py_NewRef((PyObject *)giver->block);
    return 0;
}

static PyObject *give(void *context, Py_ssize_t index)
{
    struct giver *giver = context;
    struct buffer_entry entry;
    if (index < 0 || index >= (Py_ssize_t)giver->buffers) {
        raise_damaged(NULL, "it asks for a buffer that it does not have");
        return NULL;
    }
    memcpy(&entry, giver->table + (size_t)index * sizeof entry, sizeof entry);
    if (entry.offset > giver->header.buffers_end || entry.size_bytes > giver->header.buffers_end - entry.offset) {
        raise_damaged(NULL, "a buffer lies outside of its block");
        return NULL;
    }
    if (giver->readonly)
        return view_new(giver->block, (uint64_t)(giver->base - giver->block->address) + entry.offset, entry.size_bytes,
                        true);
    if (giver->pages == NULL && make_pages(giver) < 0)
        return NULL;
    return view_new(giver->pages, entry.offset, entry.size_bytes, entry.flags & BUFFER_READONLY);
}

static PyObject *decode(struct giver *giver)
{
    const struct header *header = &giver->header;
    const uint8_t *stream = giver->base + header->stream_at, *cursor = stream, *end = stream + header->stream_bytes;
    const uint8_t *content;
    size_t bytes;
    if (section_next(&cursor, end, &content, &bytes, &giver->buffers) < 0)
        return NULL;
    if (giver->buffers == SECTION_PLAIN) {
        uint32_t count;
        PyObject *object = section_plain(&content, &bytes, &count) < 0 ? NULL : plain_read(&content, content + bytes);
        if (object == NULL && PyErr_Occurred() == NULL)
            raise_damaged(NULL, "it is not the value that it should be");
        return object;
    }
    size_t table = (size_t)giver->buffers * sizeof(struct buffer_entry);
    if (table > (size_t)(end - cursor)) {
        raise_damaged(NULL, "its table of buffers is cut short");
        return NULL;
    }
    giver->table = end - table;
    struct shoal_decoder *decoder = shoal_decoder_new(giver->state->pickle);
    if (decoder == NULL)
        return NULL;
    if (giver->state->serving != NULL)
        engine_set_heir(giver->state->serving, decoder);
    PyObject *object = shoal_decode(decoder, content, bytes, give, giver, NULL);
    shoal_decoder_free(decoder);
    return object;
}

/* The block behind a source, borrowed, and its header; NULL with TypeError or UnpicklingError. */
static struct block *read_header(struct module_state *state, PyObject *source, uint8_t **ret_start,
                                 struct header *ret_header)
{
    uint64_t bytes;
    struct block *block = block_behind(state, source, ret_start, &bytes);
    if (block == NULL) {
        PyErr_SetString(PyExc_TypeError, "a Block or View is needed");
        return NULL;
    }
    bool fits = bytes >= BASE;
    if (fits)
        memcpy(ret_header, *ret_start, sizeof *ret_header);
    if (!fits || ret_header->stream_at > bytes - BASE || ret_header->buffers_end > ret_header->stream_at ||
        ret_header->stream_bytes > bytes - BASE - ret_header->stream_at) {
        raise_damaged(state, "this is no shared object");
        return NULL;
    }
    return block;
}

static PyObject *unpack(PyObject *module, PyObject *args)
{
    struct giver giver = {.state = PyModule_GetState(module)};
    PyObject *source;
    int readonly = 0;
    uint8_t *start;
    if (!PyArg_ParseTuple(args, "O|p:_unpack", &source, &readonly))
        return NULL;
    giver.block = read_header(giver.state, source, &start, &giver.header);
    if (giver.block == NULL)
        return NULL;
    Py_INCREF(source); /* what is unpickled may drop the handle */
    giver.base = start + BASE;
    giver.readonly = readonly;
    PyObject *object = decode(&giver);
    SHOAL_KILL_POINT("share: unpacked");
    Py_XDECREF(giver.pages);
    Py_DECREF(source);
    return object;
}

/* ---- the life of a handle ---- */

static PyObject *take_in(PyObject *module, PyObject *source)
{
    struct module_state *state = PyModule_GetState(module);
    uint8_t *start;
    uint64_t bytes;
    struct block *block = block_behind(state, source, &start, &bytes);
    SHOAL_KILL_POINT("share: arrived");
    if (block == NULL) { /* it came in band */
        Py_buffer view;
        if (PyObject_GetBuffer(source, &view, PyBUF_SIMPLE) < 0)
            return NULL;
        struct block *copy = copy_block(state, view.buf, (uint64_t)view.len);
        PyBuffer_Release(&view);
        return copy == NULL ? NULL : Py_BuildValue("NO", copy, Py_False);
    }
    if (block->kind == BLOCK_MESSAGE) {
        struct block *copy = copy_block(state, start, bytes);
        return copy == NULL ? NULL : Py_BuildValue("NO", copy, Py_False);
    }
    if (block->kind == BLOCK_USER && block->epoch == state->fork_epoch && bytes >= BASE) { /* ours, as good as gone */
        uint64_t live = 1;
        memcpy(start, &live, sizeof live);
        block->packed = true;
    }
    return Py_BuildValue("OO", source, block->kind == BLOCK_BORROWED ? Py_True : Py_False);
}

static PyObject *own(PyObject *module, PyObject *source)
{
    struct module_state *state = PyModule_GetState(module);
    uint8_t *start;
    uint64_t bytes;
    struct block *block = block_behind(state, source, &start, &bytes);
    bool ours = block != NULL && block->kind == BLOCK_USER && block->epoch == state->fork_epoch;
    struct block *local = block == NULL || ours ? block : handle_local(state, block);
    if (local != NULL)
        return Py_NewRef((PyObject *)local);
    PyErr_SetString(PyExc_MemoryError, "no room in the arena for a shared object: free arrays, or raise "
                    "SHOAL_ARENA_LIMIT");
    return NULL;
}

/* The workers that hold the block are woken, to look at it; and somebody hears them when they give it back. */
static void wake_holders(struct module_state *state, uint64_t offset)
{
    for (struct engine *engine = state->engines; engine != NULL; engine = engine->next) {
        if (engine->dead || !engine->open || engine->epoch != state->fork_epoch || engine->home != state->home)
            continue;
        bool concerned = false;
        for (unsigned i = 0; i < engine->worker_count; i++) {
            /* While a task is under way we may not have heard yet who has kept it. */
            if (engine->in_flight == 0 &&
                shoal_arena_holds(engine->home->arena, offset, engine->workers[i].holder) != 1)
                continue;
            concerned = true;
            SHOAL_PARENT_POINT("retire: live cleared", shoal_peer_signal(&engine->workers[i].peer, SIGKILL));
            engine_order_sweep(engine, i);
        }
        if (concerned)
            progress_nudge(engine);
        engine->sweep_again |= engine->in_flight > 0;
    }
}

static void retire_block(struct module_state *state, struct block *block)
{
    if (block->kind != BLOCK_USER || block->epoch != state->fork_epoch || block->home == NULL || !block->packed)
        return;
    uint64_t live = 0;
    memcpy(block->address, &live, sizeof live);
    wake_holders(state, block->offset);
}

static PyObject *retire(PyObject *module, PyObject *source)
{
    struct module_state *state = PyModule_GetState(module);
    uint8_t *start;
    uint64_t bytes;
    struct block *block = block_behind(state, source, &start, &bytes);
    if (block != NULL) {
        retire_block(state, block);
        if (block->local != NULL)
            retire_block(state, block->local);
    }
    Py_RETURN_NONE;
}

static PyObject *is_live(PyObject *module, PyObject *source)
{
    struct module_state *state = PyModule_GetState(module);
    uint8_t *start;
    struct header header;
    return read_header(state, source, &start, &header) == NULL ? NULL : PyBool_FromLong(header.live != 0);
}

static void note_one(struct block *block, void *arg)
{
    (void)block;
    ++*(unsigned *)arg;
}

static PyObject *is_held(PyObject *module, PyObject *offset)
{
    unsigned count = 0;
    unsigned long long at = PyLong_AsUnsignedLongLong(offset);
    if (at == (unsigned long long)-1 && PyErr_Occurred())
        return NULL;
    blocks_of_offset(PyModule_GetState(module), at, note_one, &count);
    return PyBool_FromLong(count > 0);
}

static PyObject *place(PyObject *module, PyObject *source)
{
    uint8_t *start;
    uint64_t bytes;
    struct block *block = block_behind(PyModule_GetState(module), source, &start, &bytes);
    if (block == NULL) {
        PyErr_SetString(PyExc_TypeError, "a Block or View is needed");
        return NULL;
    }
    uint64_t inside = (uint64_t)(start - block->address);
    return Py_BuildValue("KK", (unsigned long long)(block->start + inside), (unsigned long long)bytes);
}

static PyObject *borrow(PyObject *module, PyObject *args)
{
    struct module_state *state = PyModule_GetState(module);
    unsigned long long offset, bytes;
    if (!PyArg_ParseTuple(args, "KK:_borrow", &offset, &bytes))
        return NULL;
    uint8_t *address = state->serving == NULL ? NULL : shoal_region_at(state->serving->home->region, offset, bytes);
    if (address == NULL) {
        PyErr_SetString(PyExc_RuntimeError, "this is for a worker of the pool that the object was given to");
        return NULL;
    }
    struct block *block = (struct block *)block_map(state, address, offset, bytes, BLOCK_BORROWED);
    if (block != NULL) {
        block->mode = BLOCK_READ_ONLY;
        block->frozen = true;
    }
    return (PyObject *)block;
}

static PyObject *arrived(PyObject *module, PyObject *Py_UNUSED(unused))
{
    ((struct module_state *)PyModule_GetState(module))->handle_arrived = true;
    Py_RETURN_NONE;
}

void handles_sweep(struct engine *engine)
{
    struct worker_side *side = engine->side;
    uint64_t asked = side->sweep_asked;
    PyObject *sweeper = Py_XNewRef(engine->state->sweeper);
    PyObject *result = sweeper == NULL ? NULL : PyObject_CallNoArgs(sweeper);
    if (result == NULL && sweeper != NULL)
        report_unraisable(sweeper);
    Py_XDECREF(result);
    Py_XDECREF(sweeper);
    if (side->release_count > 0)
        result_flush_releases(engine);
    if (asked == side->sweep_done)
        return;
    SHOAL_KILL_POINT("sweep: to be answered");
    side->sweep_done = asked;
    struct record record = {.kind = RECORD_SWEPT, .block_bytes = asked, .block_offset = HOME_NO_BLOCK,
                            .adopted = HOME_NO_BLOCK};
    result_send_plain(engine, &record);
}

PyObject *handles_open(struct engine *engine, PyObject *object, enum handle_place where)
{
    struct module_state *state = engine->state;
    state->handle_arrived = false;
    PyObject *opened = PyObject_CallFunction(state->opener, "iO", (int)where, object);
    Py_DECREF(object);
    return opened;
}

PyMethodDef handle_methods[] = {
    {"_pack", pack, METH_O,
     PyDoc_STR("_pack($module, obj, /)\n--\n\nPickle into a new Block of the arena, large buffers beside the stream.")},
    {"_unpack", unpack, METH_VARARGS,
     PyDoc_STR("_unpack($module, source, readonly=False, /)\n--\n\n"
               "A new object from what _pack() made, its large buffers in private pages, or read-only.")},
    {"_take_in", take_in, METH_O,
     PyDoc_STR("_take_in($module, source, /)\n--\n\n"
               "What keeps an object that has arrived: (the source itself, or a Block of ours with a copy of it;\n"
               "is it memory of the process that we are a worker of).")},
    {"_own", own, METH_O,
     PyDoc_STR("_own($module, source, /)\n--\n\nThe same in this process's own arena. MemoryError.")},
    {"_retire", retire, METH_O,
     PyDoc_STR("_retire($module, source, /)\n--\n\n"
               "The last handle of this process is gone: if the memory is ours, workers may forget the object.")},
    {"_is_live", is_live, METH_O,
     PyDoc_STR("_is_live($module, source, /)\n--\n\nTrue if there is a handle in the process that the memory is of.")},
    {"_is_held", is_held, METH_O,
     PyDoc_STR("_is_held($module, offset, /)\n--\n\nTrue if something here refers to this block of an arena.")},
    {"_place", place, METH_O,
     PyDoc_STR("_place($module, source, /)\n--\n\nWhere it lies in its region: offset and size in bytes.")},
    {"_borrow", borrow, METH_VARARGS,
     PyDoc_STR("_borrow($module, offset, size, /)\n--\n\n"
               "In a worker: what lies there in the pool's memory. Who gave us the place sees to it that it stays.")},
    {"_handle_arrived", arrived, METH_NOARGS,
     PyDoc_STR("_handle_arrived($module, /)\n--\n\nIn a worker: the arguments at hand have a handle to be opened.")},
    {NULL, NULL, 0, NULL},
};

/* SPDX-License-Identifier: BSD-3-Clause */
/* block.c - see block.h. */
#include "block.h"

#include <errno.h>
#include <unistd.h>

#include "engine.h"

static const char *const modes[] = {"copy", "readonly", "open"}; /* enum block_mode */

/* Once it has its place, which never changes. */
static void block_link(struct block *self)
{
    struct module_state *state = self->state;
    self->by_address.start = (uint64_t)(uintptr_t)self->address;
    self->by_address.end = self->by_address.start + self->size_bytes;
    interval_add(&state->blocks_by_address, &self->by_address);
    self->by_offset.start = self->offset;
    self->by_offset.end = self->offset + 1;
    interval_add(&state->blocks_by_offset, &self->by_offset);
    self->next = state->blocks;
    self->previous_next = &state->blocks;
    if (state->blocks != NULL)
        state->blocks->previous_next = &self->next;
    state->blocks = self;
}

static void block_unlink(struct block *self)
{
    if (self->previous_next == NULL)
        return;
    *self->previous_next = self->next;
    if (self->next != NULL)
        self->next->previous_next = self->previous_next;
    self->previous_next = NULL;
    interval_remove(&self->state->blocks_by_address, &self->by_address);
    interval_remove(&self->state->blocks_by_offset, &self->by_offset);
}

void block_forsake(struct block *block)
{
    block->kept = false;
    block_unlink(block);
}

static struct block *block_alloc(struct module_state *state, PyTypeObject *type)
{
    struct block *self = PyObject_New(struct block, type);
    if (self == NULL)
        return NULL;
    memset((char *)self + sizeof(PyObject), 0, sizeof *self - sizeof(PyObject));
    self->state = state;
    self->module = Py_NewRef(PyType_GetModule(state->block_type));
    self->epoch = state->fork_epoch;
    return self;
}

PyObject *block_adopt(struct module_state *state, struct home *home, uint64_t offset, uint64_t size_bytes,
                      enum block_kind kind)
{
    uint8_t *address = shoal_region_at(home->region, offset, size_bytes);
    if (address == NULL) {
        PyErr_SetString(PyExc_SystemError, "arena block outside of the region");
        return NULL;
    }
    struct block *self = block_alloc(state, state->block_type);
    if (self == NULL)
        return NULL;
    self->home = home_retain(home);
    self->offset = self->start = offset;
    self->size_bytes = size_bytes;
    self->address = address;
    self->kind = kind;
    block_link(self);
    return (PyObject *)self;
}

PyObject *block_map(struct module_state *state, uint8_t *address, uint64_t offset, uint64_t size_bytes,
                    enum block_kind kind)
{
    struct block *self = block_alloc(state, state->block_type);
    if (self == NULL)
        return NULL;
    self->offset = self->start = offset;
    self->size_bytes = size_bytes;
    self->address = address;
    self->kind = kind;
    block_link(self);
    return (PyObject *)self;
}

/* A private view of the region, or NULL: no mapping can be had. */
static void *shadow_take(struct home *home, uint64_t start, uint64_t size_bytes)
{
    void *address;
    if (home->shadow == NULL && shoal_shadow_create(home->region, &home->shadow) < 0)
        return NULL;
    return shoal_shadow_take(home->shadow, start, size_bytes, &address) < 0 ? NULL : address;
}

/* From its file: in this process the range may be private, and have been written. */
static int read_region(struct home *home, uint8_t *to, uint64_t start, uint64_t size_bytes)
{
    while (size_bytes > 0) {
        ssize_t got = pread(shoal_region_fd(home->region), to, size_bytes, (off_t)start);
        if (got <= 0 && !(got < 0 && errno == EINTR))
            return got < 0 ? -errno : -EIO;
        if (got <= 0)
            continue;
        to += got;
        start += (uint64_t)got;
        size_bytes -= (uint64_t)got;
    }
    return 0;
}

PyObject *block_private(struct module_state *state, struct home *home, uint64_t offset, uint64_t start,
                        uint64_t size_bytes)
{
    if (shoal_region_at(home->region, start, size_bytes) == NULL || size_bytes == 0) {
        raise_damaged(state, "a buffer lies outside of the region");
        return NULL;
    }
    struct block *self = block_alloc(state, state->block_type);
    if (self == NULL)
        return NULL;
    self->kind = BLOCK_PRIVATE;
    self->offset = offset;
    self->start = start;
    self->size_bytes = size_bytes;
    if (size_bytes >= OUT_OF_BAND_MIN)
        self->address = shadow_take(home, start, size_bytes);
    if (self->address != NULL) {
        self->shadowed = home_retain(home);
        block_link(self);
        return (PyObject *)self;
    }
    self->address = self->heap = PyMem_RawMalloc(size_bytes);
    if (self->heap == NULL) {
        Py_DECREF((PyObject *)self);
        return PyErr_NoMemory();
    }
    int error = read_region(home, self->heap, start, size_bytes);
    if (error < 0) {
        raise_error(error, "cannot read the shared region");
        Py_DECREF((PyObject *)self);
        return NULL;
    }
    block_link(self);
    return (PyObject *)self;
}

bool block_is_unwritten(const struct block *block, const void *address, uint64_t size_bytes)
{
    if (block->private_here) {
        uint64_t start = block->start + (uint64_t)((const uint8_t *)address - block->address);
        return shoal_region_is_unwritten(block->home->region, start, size_bytes) == 1;
    }
    return block->shadowed != NULL && shoal_shadow_is_clean(block->shadowed->shadow, address, size_bytes) == 1;
}

void block_sent(struct block *block)
{
    if (block->mode == BLOCK_AS_COPY && block->lent && !block->private_here && !block->packed)
        block->private_here = shoal_region_set_aside(block->home->region, block->offset, block_pages(block)) == 0;
}

struct block *block_allocate(struct module_state *state, uint64_t size_bytes, enum block_mode mode)
{
    struct home *home = home_get(state);
    if (home == NULL)
        return NULL;
    uint64_t offset;
    home->uses++;
    int error = shoal_arena_alloc(home->arena, size_bytes, &offset);
    if (error < 0) {
        if (error == -E2BIG || error == -EDQUOT)
            PyErr_Format(PyExc_MemoryError,
                         "no room for %llu bytes in the arena: its budget is %llu bytes; free arrays, or raise "
                         "SHOAL_ARENA_LIMIT", (unsigned long long)size_bytes, (unsigned long long)home->budget_bytes);
        else
            raise_error(error, "cannot allocate in the arena");
        return NULL;
    }
    struct block *self = (struct block *)block_adopt(state, home, offset, size_bytes, BLOCK_USER);
    if (self == NULL)
        shoal_arena_release(home->arena, offset);
    else
        self->mode = mode;
    return self;
}

static PyObject *block_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"size_bytes", "mode", NULL};
    Py_ssize_t size;
    const char *text = modes[BLOCK_AS_COPY];
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "n|s:Block", names, &size, &text))
        return NULL;
    unsigned mode = 0;
    while (mode < 3 && strcmp(text, modes[mode]) != 0)
        mode++;
    if (mode == 3) {
        PyErr_Format(PyExc_ValueError, "mode must be 'copy', 'readonly' or 'open', not '%s'", text);
        return NULL;
    }
    if (size < 0) {
        PyErr_SetString(PyExc_ValueError, "a block cannot have a negative size");
        return NULL;
    }
    return (PyObject *)block_allocate(module_state_of(type), (uint64_t)size, (enum block_mode)mode);
}

static void block_dealloc(struct block *self)
{
    PyTypeObject *type = Py_TYPE(self);
    struct module_state *state = self->state;
    block_unlink(self);
    if (self->shadowed != NULL)
        shoal_shadow_give(self->shadowed->shadow, self->address, self->size_bytes);
    home_release(self->shadowed);
    PyMem_RawFree(self->heap);
    if (self->home != NULL && self->epoch == state->fork_epoch) {
        /* Memory that is not the region's again must not be used again. */
        if (!self->private_here ||
            shoal_region_take_back(self->home->region, self->offset, block_pages(self)) == 0)
            shoal_arena_release(self->home->arena, self->offset);
        engines_memory_freed(state, self->size_bytes);
    } else if (state->serving != NULL) {
        worker_block_gone(state->serving, self);
    }
    if (state->foreign != NULL)
        foreign_reap(state);
    home_release(self->home);
    Py_XDECREF(self->under);
    Py_XDECREF(self->local);
    PyObject *module = self->module;
    PyObject_Free(self);
    Py_DECREF(type);
    Py_XDECREF(module);
}

static int block_getbuffer(struct block *self, Py_buffer *view, int flags)
{
    self->lent |= !self->frozen;
    return PyBuffer_FillInfo(view, (PyObject *)self, self->address, (Py_ssize_t)self->size_bytes, self->frozen, flags);
}

static PyObject *block_freeze(struct block *self, PyObject *Py_UNUSED(ignored))
{
    self->frozen = true;
    self->lent = false;
    Py_RETURN_NONE;
}

static PyObject *block_settle(struct block *self, PyObject *Py_UNUSED(ignored))
{
    self->in_hand = 0;
    Py_RETURN_NONE;
}

static PyObject *block_get_mode(struct block *self, void *Py_UNUSED(closure))
{
    return PyUnicode_FromString(modes[self->mode]);
}

static PyObject *block_get_size(struct block *self, void *Py_UNUSED(closure))
{
    return PyLong_FromUnsignedLongLong(self->size_bytes);
}

struct block *block_containing(struct module_state *state, const void *address, uint64_t size_bytes)
{
    uint64_t start = (uint64_t)(uintptr_t)address;
    struct interval *found = interval_containing(state->blocks_by_address, start, start + size_bytes);
    return found == NULL ? NULL : (struct block *)((char *)found - offsetof(struct block, by_address));
}

struct visit {
    void (*visit)(struct block *block, void *arg);
    void *arg;
};

static void visit_block(struct interval *node, void *arg)
{
    const struct visit *visit = arg;
    visit->visit((struct block *)((char *)node - offsetof(struct block, by_offset)), visit->arg);
}

void blocks_of_offset(struct module_state *state, uint64_t offset, void (*visit)(struct block *block, void *arg),
                      void *arg)
{
    struct visit all = {.visit = visit, .arg = arg};
    interval_each_at(state->blocks_by_offset, offset, visit_block, &all);
}

void block_freeze_exporter(struct module_state *state, PyObject *exporter)
{
    PyObject *object = Py_NewRef(exporter);
    /* A chain of numpy views: array -> base array -> ... -> Block. Anything without `flags` ends it. */
    for (int depth = 0; depth < 64 && object != NULL && object != Py_None; depth++) {
        if (Py_TYPE(object) == state->block_type) {
            ((struct block *)object)->frozen = true;
            break;
        }
        PyObject *flags = PyObject_GetAttr(object, state->str_flags);
        if (flags == NULL || PyObject_SetAttr(flags, state->str_writeable, Py_False) < 0)
            PyErr_Clear();
        Py_XDECREF(flags);
        PyObject *base = PyObject_GetAttr(object, state->str_base);
        if (base == NULL)
            PyErr_Clear();
        Py_SETREF(object, base);
    }
    Py_XDECREF(object);
}

PyDoc_STRVAR(block_doc,
"Block(size_bytes, mode='copy')\n--\n\n"
"Memory in this process's shared arena, exported as a buffer; the base of the arrays that shoal.empty() makes.\n\n"
"Passing an array over it to a pool costs a handle; what arrives there is by the mode as good as a copy ('copy'),\n"
"read-only, or the shared memory itself ('open'). The memory goes back when the last view is collected.\n"
"Raises MemoryError when the arena's budget (SHOAL_ARENA_LIMIT) or the machine's memory is exhausted.");

static PyMethodDef block_methods[] = {
    {"_settle", (PyCFunction)block_settle, METH_NOARGS,
     PyDoc_STR("_settle($self, /)\n--\n\nIt is made: from now on children that are forked have it, too.")},
    {"freeze", (PyCFunction)block_freeze, METH_NOARGS,
     PyDoc_STR("freeze($self, /)\n--\n\nBuffers taken from now on are read-only, and the caller has all that were "
               "taken before.")},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef block_getset[] = {
    {"mode", (getter)block_get_mode, NULL, PyDoc_STR("'copy', 'readonly' or 'open'."), NULL},
    {"size", (getter)block_get_size, NULL, PyDoc_STR("Size in bytes."), NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot block_slots[] = {
    {Py_tp_doc, (void *)block_doc},
    {Py_tp_new, block_new},
    {Py_tp_dealloc, block_dealloc},
    {Py_tp_methods, block_methods},
    {Py_tp_getset, block_getset},
    {Py_bf_getbuffer, block_getbuffer},
    {0, NULL},
};

PyType_Spec block_spec = {
    .name = "shoal._ext.Block",
    .basicsize = sizeof(struct block),
    .flags = Py_TPFLAGS_DEFAULT,
    .slots = block_slots,
};

/* ---- View ---- */

struct view {
    PyObject_HEAD
    struct block *block;
    uint8_t *address;
    Py_ssize_t size_bytes;
    bool readonly;
};

PyObject *view_new(struct block *block, uint64_t offset_in_block, uint64_t size_bytes, bool readonly)
{
    struct view *self = PyObject_New(struct view, block->state->view_type);
    if (self == NULL)
        return NULL;
    self->block = (struct block *)Py_NewRef(block);
    self->address = block->address + offset_in_block;
    self->size_bytes = (Py_ssize_t)size_bytes;
    self->readonly = readonly;
    return (PyObject *)self;
}

struct block *block_behind(struct module_state *state, PyObject *exporter, uint8_t **ret_start, uint64_t *ret_bytes)
{
    if (Py_IS_TYPE(exporter, state->view_type)) {
        struct view *view = (struct view *)exporter;
        *ret_start = view->address;
        *ret_bytes = (uint64_t)view->size_bytes;
        return view->block;
    }
    if (!Py_IS_TYPE(exporter, state->block_type))
        return NULL;
    struct block *block = (struct block *)exporter;
    *ret_start = block->address;
    *ret_bytes = block->size_bytes;
    return block;
}

static void view_dealloc(struct view *self)
{
    PyTypeObject *type = Py_TYPE(self);
    struct block *block = self->block;
    PyObject_Free(self);
    Py_DECREF(type);
    Py_DECREF(block);
}

static int view_getbuffer(struct view *self, Py_buffer *buffer, int flags)
{
    return PyBuffer_FillInfo(buffer, (PyObject *)self, self->address, self->size_bytes, self->readonly, flags);
}

static PyType_Slot view_slots[] = {
    {Py_tp_doc, (void *)PyDoc_STR("A range of a Block that was received with a message; exports a buffer.")},
    {Py_tp_dealloc, view_dealloc},
    {Py_bf_getbuffer, view_getbuffer},
    {0, NULL},
};

PyType_Spec view_spec = {
    .name = "shoal._ext.View",
    .basicsize = sizeof(struct view),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = view_slots,
};

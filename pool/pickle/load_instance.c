/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * load_instance.c - instances of usual classes, thousands of them, without the dicts of their states.
 *
 * The problem: a stream makes an instance empty (NEWOBJ), then a dict with its state (EMPTY_DICT, MARK, keys and
 * values, SETITEMS), and moves everything from that dict into the instance (BUILD). The dict costs more than the
 * instance, and is dropped right away; but it has a number in the memo, under which it may be fetched once more.
 *
 * The protocol:
 *   open   NEWOBJ of a usual class (load_build.c) that is followed by EMPTY_DICT and MARK: the dict is not made. None
 *          takes its place on the stack and a promise its place in the memo; the MARK above remembers both.
 *   close  at SETITEMS, if BUILD comes next: keys and values go from the stack into the instance. The promise now names
 *          the instance; it is entered in a list, together with the keys.
 *   make   any other end, by whatever opcode takes the MARK off: the dict is made then, and all goes the usual way. So
 *          it does if user code ran since the state was opened, which might have touched the instance.
 *   keep   before user code runs, or the stream fetches a promised dict, or something that was put can be dropped (all
 *          of these end the epoch): the promised dicts are made from their instances, which still are as they were.
 *
 * Whether a class is usual is looked up once, and once per stream whether an instance can be given certain attributes:
 * a shape is the keys of a state, as objects. The version of the class (type_version.h) says that both still hold. A
 * shape's keys are alive as long as the shape, so comparing their addresses is enough.
 *
 * Cost: a stream of n states holds at most n promises (16 bytes each) and SHAPES_MAX shapes; what goes beyond is built
 * in the usual way.
 */
#include "decoder.h"

#include "opcodes.h"
#include "type_version.h"

enum {
    CLASSES = 16,
    SHAPES_MAX = 64,
    KEYS_MAX = 64, /* attributes of one shape */
    PROMISES_KEPT = 4096,
};

struct shoal__class {
    PyTypeObject *type; /* compared, never followed */
    uint64_t version;
    bool usual;
    struct shoal__shape *shapes;
};

struct shoal__shape {
    struct shoal__shape *next_of_class;
    struct shoal__shape *next;
    Py_ssize_t size;
    PyObject *names[]; /* [0, size): the keys as the stream has them; [size, 2 size): the same, interned */
};

struct shoal__promised {
    size_t index; /* in the memo */
    const struct shoal__shape *shape;
};

/* Are the names in the namespaces of a class and its bases str? Then looking for another one runs no user code. */
static bool has_plain_names(const PyTypeObject *type)
{
    PyObject *mro = type->tp_mro;
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(mro); i++) {
        PyTypeObject *base = (PyTypeObject *)PyTuple_GET_ITEM(mro, i);
#if PY_VERSION_HEX >= 0x030C0000
        PyObject *dict = PyType_GetDict(base);
#else
        PyObject *dict = Py_XNewRef(base->tp_dict);
#endif
        PyObject *name;
        Py_ssize_t position = 0;
        bool plain = dict != NULL;
        while (plain && PyDict_Next(dict, &position, &name, NULL))
            plain = PyUnicode_CheckExact(name);
        Py_XDECREF(dict);
        if (!plain)
            return false;
    }
    return true;
}

/* Can instances be made without user code, and be given attributes one by one? */
static bool can_be_filled(const struct shoal_decoder *decoder, PyTypeObject *type)
{
    return type->tp_new == PyBaseObject_Type.tp_new && !PyType_HasFeature(type, Py_TPFLAGS_IS_ABSTRACT) &&
           type->tp_mro != NULL && has_plain_names(type) && shoal__is_usual(decoder, type);
}

/* The entry of this class as it is now; NULL: no memory for it, or it cannot be watched. */
static struct shoal__class *find_class(struct shoal_decoder *decoder, PyTypeObject *type)
{
    struct shoal__class *classes = decoder->instances.classes;
    uint64_t version = shoal__type_version(decoder->state, type);
    if (classes != NULL && version != 0) {
        struct shoal__class *found = &classes[((uintptr_t)type >> 4) % CLASSES];
        if (found->type == type && found->version == version)
            return found;
    }
    if (classes == NULL) {
        classes = PyMem_Calloc(CLASSES, sizeof(*classes));
        if (classes == NULL)
            return NULL;
        decoder->instances.classes = classes;
    }
    shoal__own(decoder); /* the names that are looked up may be anything */
    bool usual = can_be_filled(decoder, type);
    version = shoal__type_version(decoder->state, type); /* looking it up gives it one */
    if (version == 0)
        return NULL;
    struct shoal__class *entry = &classes[((uintptr_t)type >> 4) % CLASSES];
    *entry = (struct shoal__class){.type = type, .version = version, .usual = usual};
    return entry;
}

/* ---- open ---- */

/* What follows NEWOBJ: [PUT] EMPTY_DICT [PUT] MARK. */
struct opening {
    bool names_instance;
    bool names_state;
    size_t size; /* in bytes */
};

/* Does at begin with an opcode that puts at this index? Its size, or 0. */
static size_t size_of_put(const uint8_t *at, const uint8_t *limit, size_t index)
{
    size_t left = (size_t)(limit - at);
    switch (left > 0 ? shoal__fetch(at, 1) : 0) {
    case OP_MEMOIZE:
        return 1;
    case OP_BINPUT:
        return left >= 2 && shoal__fetch(at + 1, 1) == index ? 2 : 0;
    case OP_LONG_BINPUT:
        return left >= 5 && shoal__fetch(at + 1, 4) == index ? 5 : 0;
    default:
        return 0;
    }
}

static bool is_opcode(const uint8_t *at, const uint8_t *limit, unsigned opcode)
{
    return at < limit && shoal__fetch(at, 1) == opcode;
}

/* Both names are the next ones in the memo, which has room for them. */
static bool look_ahead(const struct shoal_decoder *decoder, struct opening *ret_opening)
{
    const struct shoal__memo *memo = &decoder->memo;
    const uint8_t *start = decoder->source.cursor;
    const uint8_t *limit = decoder->source.limit;
    if (memo->count != memo->used || memo->used + 2 > memo->append_limit)
        return false;
    const uint8_t *at = start + size_of_put(start, limit, memo->used);
    bool names_instance = at > start;
    if (!is_opcode(at++, limit, OP_EMPTY_DICT))
        return false;
    size_t size = size_of_put(at, limit, memo->used + (names_instance ? 1 : 0));
    at += size;
    if (!is_opcode(at++, limit, OP_MARK) || (size > 0 && !names_instance))
        return false;
    *ret_opening = (struct opening){names_instance, size > 0, (size_t)(at - start)};
    return true;
}

static int open_state(struct shoal_decoder *decoder, PyObject *obj, const struct opening *opening)
{
    struct shoal__memo *memo = &decoder->memo;
    if (opening->names_instance)
        shoal__memo_append(memo, obj);
    if (shoal__push(decoder, Py_NewRef(Py_None)) < 0 || shoal__mark(decoder) < 0)
        return -1;
    struct shoal__mark *mark = &decoder->marks[decoder->mark_count - 1];
    mark->state = opening->names_state ? SHOAL__NAMED_STATE : SHOAL__UNNAMED_STATE;
    mark->epoch = decoder->epoch;
    if (opening->names_state) {
        memo->slots[memo->used++] = shoal__promise(NULL);
        memo->count++;
    }
    decoder->source.cursor += opening->size;
    return 0;
}

int shoal__make_instance(struct shoal_decoder *decoder)
{
    PyObject *arguments = decoder->top[-1];
    PyObject *class = decoder->top[-2];
    if (!decoder->memo.borrows || !PyTuple_CheckExact(arguments) || PyTuple_GET_SIZE(arguments) != 0 ||
        !PyType_Check(class))
        return 0;
    PyTypeObject *type = (PyTypeObject *)class;
    const struct shoal__class *entry = find_class(decoder, type);
    if (entry == NULL || !entry->usual)
        return 0;
    PyObject *obj = type->tp_new(type, arguments, NULL);
    if (obj == NULL)
        return -1;
    /* The instance keeps its class, and there is but one empty tuple: nothing goes away here. */
    decoder->top[-2] = obj;
    decoder->top--;
    Py_DECREF(arguments);
    Py_DECREF(class);
    struct opening opening;
    if (decoder->memo.borrows && look_ahead(decoder, &opening) && open_state(decoder, obj, &opening) < 0)
        return -1;
    return 1;
}

/* ---- close ---- */

static bool fits(const struct shoal__shape *shape, PyObject *const *items, Py_ssize_t size)
{
    if (shape->size != size)
        return false;
    for (Py_ssize_t i = 0; i < size; i++)
        if (shape->names[i] != items[2 * i])
            return false;
    return true;
}

/* May an instance of this class be given this attribute without asking anybody? */
static bool is_usual_name(PyTypeObject *type, PyObject *name)
{
    if (!PyUnicode_CheckExact(name))
        return false;
    PyObject *described = _PyType_Lookup(type, name);
    return described == NULL || Py_TYPE(described)->tp_descr_set == NULL;
}

/* Enter the keys of a state into the list. NULL without an exception: they are not usual, or there is no room. */
static struct shoal__shape *add_shape(struct shoal_decoder *decoder, struct shoal__class *class, PyObject **items,
                                      Py_ssize_t size)
{
    struct shoal__instances *instances = &decoder->instances;
    if (size > KEYS_MAX || instances->shape_count == SHAPES_MAX)
        return NULL;
    struct shoal__shape *shape = PyMem_Malloc(sizeof(*shape) + (size_t)(2 * size) * sizeof(PyObject *));
    if (shape == NULL)
        return NULL;
    shape->size = 0;
    bool usual = true;
    for (Py_ssize_t i = 0; usual && i < size; i++) {
        PyObject *name = items[2 * i];
        usual = is_usual_name(class->type, name);
        shape->names[i] = Py_NewRef(name);
        shape->names[size + i] = Py_NewRef(name);
        if (usual)
            PyUnicode_InternInPlace(&shape->names[size + i]);
        for (Py_ssize_t j = 0; usual && j < i; j++)
            usual = shape->names[size + i] != shape->names[size + j];
        shape->size++;
    }
    if (!usual) {
        for (Py_ssize_t i = 0; i < shape->size; i++) {
            Py_DECREF(shape->names[i]);
            Py_DECREF(shape->names[size + i]);
        }
        PyMem_Free(shape);
        return NULL;
    }
    shape->next = instances->shapes;
    instances->shapes = shape;
    instances->shape_count++;
    shape->next_of_class = class->shapes;
    class->shapes = shape;
    return shape;
}

static struct shoal__shape *find_shape(struct shoal_decoder *decoder, PyTypeObject *type, PyObject **items,
                                       Py_ssize_t size)
{
    struct shoal__class *class = find_class(decoder, type);
    if (class == NULL || !class->usual)
        return NULL;
    for (struct shoal__shape *shape = class->shapes; shape != NULL; shape = shape->next_of_class)
        if (fits(shape, items, size))
            return shape;
    return add_shape(decoder, class, items, size);
}

/* The instance lives while its promise does: it was put just before, so that dropping it would end the epoch. */
static int enter_promise(struct shoal_decoder *decoder, size_t index, PyObject *obj, const struct shoal__shape *shape)
{
    struct shoal__instances *instances = &decoder->instances;
    if (instances->promised_count == instances->promised_capacity) {
        size_t wanted = instances->promised_capacity < 64 ? 64 : instances->promised_capacity * 2;
        struct shoal__promised *promised = PyMem_Realloc(instances->promised, wanted * sizeof(*promised));
        if (promised == NULL) {
            PyErr_NoMemory();
            return -1;
        }
        instances->promised = promised;
        instances->promised_capacity = wanted;
    }
    instances->promised[instances->promised_count++] = (struct shoal__promised){index, shape};
    decoder->memo.slots[index] = shoal__promise(obj);
    return 0;
}

static int fill(PyObject *obj, const struct shoal__shape *shape, PyObject *const *items)
{
    PyObject *const *names = shape->names + shape->size;
    for (Py_ssize_t i = 0; i < shape->size; i++)
        if (PyObject_GenericSetAttr(obj, names[i], items[2 * i + 1]) < 0)
            return -1;
    return 0;
}

int shoal__close_state(struct shoal_decoder *decoder)
{
    const struct shoal__mark *mark = &decoder->marks[decoder->mark_count - 1];
    PyObject **start = decoder->base + mark->offset;
    PyObject *obj = start[-2];
    Py_ssize_t size = (decoder->top - start) / 2;
    if (mark->epoch != decoder->epoch || (decoder->top - start) % 2 != 0 ||
        !is_opcode(decoder->source.cursor, decoder->source.limit, OP_BUILD))
        return 0;
    const struct shoal__shape *shape = find_shape(decoder, Py_TYPE(obj), start, size);
    if (shape == NULL || mark->epoch != decoder->epoch)
        return 0;
    if (fill(obj, shape, start) < 0)
        return -1;
    if (mark->state == SHOAL__NAMED_STATE && enter_promise(decoder, mark->index, obj, shape) < 0)
        return -1;
    decoder->marks[decoder->mark_count - 1].state = SHOAL__NO_STATE; /* so that nothing is made of it */
    shoal__unmark(decoder);
    shoal__stack_cut(decoder, start - 1);
    decoder->source.cursor++;
    return 1;
}

/* ---- make and keep ---- */

int shoal__make_state(struct shoal_decoder *decoder, struct shoal__mark *mark)
{
    struct shoal__memo *memo = &decoder->memo;
    PyObject *dict = PyDict_New();
    if (dict == NULL)
        return -1;
    PyObject **place = decoder->base + mark->offset - 1;
    Py_DECREF(*place);
    *place = dict;
    if (mark->state == SHOAL__NAMED_STATE)
        memo->slots[mark->index] = mark->index < memo->owned ? Py_NewRef(dict) : dict;
    mark->state = SHOAL__NO_STATE;
    return 0;
}

/* The state of an instance as it is now. New reference, or NULL: no memory. */
static PyObject *state_of(PyObject *obj, const struct shoal__shape *shape)
{
    PyObject *dict = PyDict_New();
    for (Py_ssize_t i = 0; dict != NULL && i < shape->size; i++) {
        PyObject *value = PyObject_GenericGetAttr(obj, shape->names[shape->size + i]);
        if (value == NULL || PyDict_SetItem(dict, shape->names[i], value) < 0)
            Py_CLEAR(dict);
        Py_XDECREF(value);
    }
    return dict;
}

/* The memo owns everything else by now. Without memory the slot is as if nothing had been put. */
void shoal__keep_promises(struct shoal_decoder *decoder)
{
    struct shoal__instances *instances = &decoder->instances;
    for (size_t i = 0; i < instances->promised_count; i++) {
        const struct shoal__promised *promised = &instances->promised[i];
        PyObject **slot = &decoder->memo.slots[promised->index];
        *slot = state_of((PyObject *)((uintptr_t)*slot & ~(uintptr_t)1), promised->shape);
        if (*slot == NULL)
            PyErr_Clear();
    }
    instances->promised_count = 0;
}

void shoal__instances_clear(struct shoal__instances *instances)
{
    struct shoal__shape *next;
    for (struct shoal__shape *shape = instances->shapes; shape != NULL; shape = next) {
        next = shape->next;
        for (Py_ssize_t i = 0; i < 2 * shape->size; i++)
            Py_DECREF(shape->names[i]);
        PyMem_Free(shape);
    }
    instances->shapes = NULL;
    instances->shape_count = 0;
    for (int i = 0; instances->classes != NULL && i < CLASSES; i++)
        instances->classes[i].shapes = NULL;
    instances->promised_count = 0;
    if (instances->promised_capacity > PROMISES_KEPT) {
        PyMem_Free(instances->promised);
        instances->promised = NULL;
        instances->promised_capacity = 0;
    }
}

void shoal__instances_done(struct shoal__instances *instances)
{
    shoal__instances_clear(instances);
    PyMem_Free(instances->classes);
    instances->classes = NULL;
    PyMem_Free(instances->promised);
    instances->promised = NULL;
}

/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * fuzz_decode.c - a libFuzzer target for the unpickler and for what its streams call.
 *
 * Promises: whatever the bytes are, decoding ends with an object or with an exception; it reads nothing outside of
 * them, leaves nothing on the decoder's stack and the collector switched on as it was. What was loaded can be dumped
 * and loaded again, and is then the same (or refuses with an exception).
 *
 * The first byte of an input chooses how the rest is read; see the flags. Or the rest is the bytes of a code object,
 * for which version and checksum are made here: no mutation would ever get past these otherwise. What comes of it is
 * not used: CPython itself writes beyond the end of bytecode whose last instruction lacks its inline caches, as soon as
 * co_code is asked for. A stream may name only the harmless classes of fuzz_world.py and our own reconstructors,
 * otherwise the fuzzer would soon find os.system.
 *
 * Build and run: tests/fuzz/run (see there). PYTHONMALLOC=malloc, so that AddressSanitizer sees each object.
 */
#include "../../pool/pickle/code.h"
#include "../../pool/pickle/decoder.h"

#include <stdio.h>
#include <stdlib.h>

enum {
    FROM_FILE = 1,
    KEEP_BYTES = 2,
    WITH_BUFFERS = 4,
    BY_FUNCTION = 8, /* loads(), or (from a file) an Unpickler with hooks: as Python code does it */
    ROUND_TRIP = 16,
    FILE_KIND_SHIFT = 5,
    CODE_BYTES = 255, /* instead of all of these */
    CHECK_EVERY = 1024, /* collecting takes longer than decoding */
};

struct world {
    PyObject *module;    /* stands for shoal._ext */
    PyObject *unpickler; /* has find_class and persistent_load */
    PyObject *make_file;
    PyObject *load_by_function;
    PyObject *load_by_unpickler;
    PyObject *check_round_trip;
    struct shoal_pickle_state *state;
    struct shoal_decoder *decoder;
    unsigned count;
};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerInitialize(int *argc, char ***argv);

static struct PyModuleDef extension = {
    PyModuleDef_HEAD_INIT,
    .m_name = "shoal._ext",
    .m_size = sizeof(struct shoal_pickle_state *),
};

static void require(int condition, const char *what)
{
    if (condition)
        return;
    fprintf(stderr, "fuzz_decode: broken: %s\n", what);
    if (PyErr_Occurred())
        PyErr_Print();
    abort();
}

static PyObject *give_buffer(void *context, Py_ssize_t index)
{
    struct world *world = context;
    if (index < 4)
        return PyByteArray_FromStringAndSize("buffer", 6);
    PyErr_SetString(world->state->shared.unpickling_error, "not enough out-of-band buffers");
    return NULL;
}

static void make_extension(struct world *world)
{
    world->module = PyModule_Create(&extension);
    require(world->module != NULL, "no module");
    require(shoal_pickle_state_init(world->module, &world->state) == 0, "the state");
    *(struct shoal_pickle_state **)PyModule_GetState(world->module) = world->state;
    PyObject *modules = PyImport_GetModuleDict();
    require(PyDict_SetItemString(modules, "shoal._ext", world->module) == 0, "sys.modules");
}

static struct world *make_world(void)
{
    struct world *world = calloc(1, sizeof(*world));
    require(world != NULL, "no memory");
    Py_InitializeEx(0);
    make_extension(world);
    const char *directory = getenv("SHOAL_FUZZ_DIRECTORY");
    require(directory != NULL, "SHOAL_FUZZ_DIRECTORY must say where fuzz_world.py is");
    PyObject *path = PySys_GetObject("path");
    PyObject *entry = PyUnicode_FromString(directory);
    require(entry != NULL && PyList_Append(path, entry) == 0, "sys.path");
    Py_DECREF(entry);
    PyObject *helpers = PyImport_ImportModule("fuzz_world");
    require(helpers != NULL, "fuzz_world.py");
    world->unpickler = PyObject_GetAttrString(helpers, "WORLD");
    world->make_file = PyObject_GetAttrString(helpers, "make_file");
    world->load_by_function = PyObject_GetAttrString(helpers, "load_by_function");
    world->load_by_unpickler = PyObject_GetAttrString(helpers, "load_by_unpickler");
    world->check_round_trip = PyObject_GetAttrString(helpers, "check_round_trip");
    require(!PyErr_Occurred(), "what fuzz_world.py offers");
    const char *seeds = getenv("SHOAL_FUZZ_SEEDS");
    PyObject *written = PyObject_CallMethod(helpers, "begin", "z", seeds);
    require(written != NULL, "the seeds");
    Py_DECREF(written);
    Py_DECREF(helpers);
    if (seeds != NULL)
        exit(0);
    world->decoder = shoal_decoder_new(world->state);
    require(world->decoder != NULL, "no decoder");
    world->decoder->unpickler = world->unpickler;
    world->decoder->custom_find_class = true;
    return world;
}

static PyObject *decode_memory(struct world *world, const uint8_t *data, size_t size, unsigned flags)
{
    /* A copy of its exact size: one byte too far is then an error that is seen. */
    uint8_t *copy = malloc(size + (size == 0));
    require(copy != NULL, "no memory");
    memcpy(copy, data, size);
    size_t used = 0;
    world->decoder->keep_bytes = (flags & KEEP_BYTES) != 0;
    PyObject *value =
        shoal_decode(world->decoder, copy, size, flags & WITH_BUFFERS ? give_buffer : NULL, world, &used);
    require(value == NULL || used <= size, "more used than there was");
    free(copy);
    return value;
}

static PyObject *decode_file(struct world *world, const uint8_t *data, size_t size, unsigned flags)
{
    PyObject *file = PyObject_CallFunction(world->make_file, "y#i", (const char *)data, (Py_ssize_t)size,
                                           (int)(flags >> FILE_KIND_SHIFT));
    struct shoal_decoder *decoder = shoal_decoder_new(world->state);
    require(file != NULL && decoder != NULL, "no file");
    require(shoal__source_open(decoder, file) == 0, "the file's methods");
    decoder->unpickler = world->unpickler;
    decoder->custom_find_class = true;
    PyObject *value = shoal__decoder_load(decoder);
    require(decoder->top == decoder->base, "something is left on the stack");
    shoal_decoder_free(decoder);
    Py_DECREF(file);
    return value;
}

static PyObject *read_code(struct world *world, const uint8_t *data, size_t size)
{
    PyObject *bytes = PyBytes_FromStringAndSize(NULL, SHOAL_CODE_HEADER_SIZE + (Py_ssize_t)size);
    require(bytes != NULL, "no memory");
    uint8_t *at = (uint8_t *)PyBytes_AS_STRING(bytes);
    uint32_t sum = shoal__code_checksum(data, size);
    const uint8_t head[] = {PY_MAJOR_VERSION, PY_MINOR_VERSION, (uint8_t)sum,
                            (uint8_t)(sum >> 8), (uint8_t)(sum >> 16), (uint8_t)(sum >> 24)};
    memcpy(at, head, sizeof(head));
    memcpy(at + sizeof(head), data, size);
    PyObject *code = shoal__code_read(world->state, bytes, NULL);
    Py_DECREF(bytes);
    return code;
}

static PyObject *load(struct world *world, const uint8_t *data, size_t size, unsigned flags)
{
    if (flags == CODE_BYTES)
        return read_code(world, data, size);
    if (flags & BY_FUNCTION)
        return PyObject_CallFunction(flags & FROM_FILE ? world->load_by_unpickler : world->load_by_function, "y#i",
                                     (const char *)data, (Py_ssize_t)size, (int)flags);
    return flags & FROM_FILE ? decode_file(world, data, size, flags) : decode_memory(world, data, size, flags);
}

static void check_round_trip(struct world *world, PyObject *value)
{
    PyObject *none = PyObject_CallOneArg(world->check_round_trip, value);
    require(none != NULL, "what was loaded came back as something else");
    Py_DECREF(none);
}

static void check_sound(const struct world *world)
{
    require(world->decoder->top == world->decoder->base, "something is left on the stack");
    require(world->decoder->memo.used == 0, "something is left in the memo");
    require(PyGC_IsEnabled(), "the collector stayed off");
}

static struct world *the_world(void)
{
    static struct world *world;
    if (world == NULL)
        world = make_world();
    return world;
}

int LLVMFuzzerInitialize(int *Py_UNUSED(argc), char ***Py_UNUSED(argv))
{
    the_world();
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct world *world = the_world();
    if (size == 0)
        return 0;
    unsigned flags = data[0];
    PyObject *value = load(world, data + 1, size - 1, flags);
    require((value == NULL) == (PyErr_Occurred() != NULL), "an exception or an object, not both, not neither");
    if (value == NULL)
        require(!PyErr_ExceptionMatches(PyExc_SystemError), "SystemError: the interpreter was misused");
    PyErr_Clear();
    check_sound(world);
    if (value != NULL && flags & ROUND_TRIP && flags != CODE_BYTES)
        check_round_trip(world, value);
    Py_XDECREF(value);
    require(!PyErr_Occurred(), "an exception after all");
    if (++world->count % CHECK_EVERY == 0)
        PyGC_Collect();
    return 0;
}

/* SPDX-License-Identifier: BSD-3-Clause */
/* name_set.c - sets of names in the order of their coming, and the names in a text. */
#include "code.h"

void shoal__name_set_init(struct shoal_name_set *set)
{
    set->count = 0;
    set->many = NULL;
}

static int become_many(struct shoal_name_set *set)
{
    set->many = PyDict_New();
    int result = set->many ? 0 : -1;
    for (size_t i = 0; result == 0 && i < set->count; i++)
        result = PyDict_SetItem(set->many, set->few[i], Py_None);
    return result;
}

int shoal__name_set_add(struct shoal_name_set *set, PyObject *name)
{
    if (!set->many) {
        for (size_t i = 0; i < set->count; i++)
            if (set->few[i] == name)
                return 0;
        if (set->count < SHOAL_FEW_NAMES) {
            set->few[set->count++] = Py_NewRef(name);
            return 0;
        }
        if (become_many(set) < 0)
            return -1;
    }
    return PyDict_SetItem(set->many, name, Py_None);
}

PyObject *shoal__name_set_tuple(const struct shoal_name_set *set)
{
    if (set->many)
        return PySequence_Tuple(set->many);
    PyObject *tuple = PyTuple_New((Py_ssize_t)set->count);
    for (size_t i = 0; tuple && i < set->count; i++)
        PyTuple_SET_ITEM(tuple, (Py_ssize_t)i, Py_NewRef(set->few[i]));
    return tuple;
}

void shoal__name_set_done(struct shoal_name_set *set)
{
    for (size_t i = 0; i < set->count; i++)
        Py_DECREF(set->few[i]);
    Py_XDECREF(set->many);
}

/* ---- names in a text ---- */

static bool starts_name(Py_UCS4 c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' || c >= 0x80;
}

static bool continues_name(Py_UCS4 c)
{
    return starts_name(c) || (c >= '0' && c <= '9');
}

struct words {
    int kind;
    const void *data;
    Py_ssize_t length;
    Py_ssize_t start; /* of the word found last */
    Py_ssize_t end;
};

/* The next word that is no attribute of what stands before it. */
static bool next_word(struct words *words, bool *ret_beside)
{
    Py_ssize_t i = words->end;
    *ret_beside = i > 0;
    for (; i < words->length; i++) {
        Py_UCS4 c = PyUnicode_READ(words->kind, words->data, i);
        if (starts_name(c))
            break;
        if (c != ' ' && c != '\n')
            *ret_beside = false;
    }
    words->start = i;
    while (i < words->length && continues_name(PyUnicode_READ(words->kind, words->data, i)))
        i++;
    words->end = i;
    return words->start < words->length;
}

int shoal__name_set_add_text(struct shoal_name_set *set, PyObject *text, bool strict)
{
    struct words words = {(int)PyUnicode_KIND(text), PyUnicode_DATA(text), PyUnicode_GET_LENGTH(text), 0, 0};
    bool beside;
    struct words all = words;
    while (strict && next_word(&all, &beside))
        if (beside)
            return 0; /* prose */
    while (next_word(&words, &beside)) {
        if (words.start > 0 && PyUnicode_READ(words.kind, words.data, words.start - 1) == '.')
            continue;
        PyObject *word = PyUnicode_Substring(text, words.start, words.end);
        if (!word || (!set->many && become_many(set) < 0) || PyDict_SetItem(set->many, word, Py_None) < 0) {
            Py_XDECREF(word);
            return -1;
        }
        Py_DECREF(word);
    }
    return 0;
}

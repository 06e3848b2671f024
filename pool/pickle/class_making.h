/* SPDX-License-Identifier: BSD-3-Clause */
/* class_making.h - a class that several threads receive at once is made by one of them: see class_making.c. */
#ifndef SHOAL_PICKLE_CLASS_MAKING_H
#define SHOAL_PICKLE_CLASS_MAKING_H

#include "class_record.h"

/* A class that a thread is making. */
struct shoal_making;

/*
 * For a class of this mark that was looked for and is not here; nothing may run between that and this call.
 * 1: it is the caller's to make, and *ret_making is for shoal__making_end, whatever becomes of it. 0: another thread
 * was making it and that is over, so look again. -1: a signal handler has raised.
 */
int shoal__making_begin(struct shoal_pickle_state *state, PyObject *mark, struct shoal_making **ret_making);
void shoal__making_end(struct shoal_pickle_state *state, struct shoal_making *making);

/* In a forked child, which has one thread: what others were making is nobody's. */
void shoal__makings_after_fork(struct shoal_pickle_state *state);

#endif

/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * glibc_names.c - what Debian's libcunit.a, compiled for glibc with fortified functions, calls and musl does not have.
 *
 * The C tests are linked with it by `./run cross`; nothing that is installed is. The archive's own jmp_buf is as large
 * as musl's, and it takes FILE by pointer only.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

int __fprintf_chk(FILE *file, int flag, const char *format, ...)
{
    va_list args;
    (void)flag;
    va_start(args, format);
    int written = vfprintf(file, format, args);
    va_end(args);
    return written;
}

int __printf_chk(int flag, const char *format, ...)
{
    va_list args;
    (void)flag;
    va_start(args, format);
    int written = vprintf(format, args);
    va_end(args);
    return written;
}

int __snprintf_chk(char *text, size_t size, int flag, size_t real_size, const char *format, ...)
{
    va_list args;
    (void)flag;
    (void)real_size;
    va_start(args, format);
    int written = vsnprintf(text, size, format, args);
    va_end(args);
    return written;
}

char *__strcat_chk(char *text, const char *more, size_t real_size)
{
    (void)real_size;
    return strcat(text, more);
}

_Noreturn void __longjmp_chk(jmp_buf place, int value)
{
    longjmp(place, value);
}

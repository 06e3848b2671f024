# SPDX-License-Identifier: BSD-3-Clause
# Checks of Shoal's own; each sets what Makefile.am uses and nothing else.

# SHOAL_COMPILER_FLAGS: SHOAL_CFLAGS, what every source of ours is compiled with.
AC_DEFUN([SHOAL_COMPILER_FLAGS], [
    SHOAL_CFLAGS="-std=gnu11 -fvisibility=hidden -fno-semantic-interposition"
    SHOAL_CFLAGS="$SHOAL_CFLAGS -Wall -Wextra -Wstrict-prototypes -Wmissing-prototypes -Wpointer-arith -Wvla"
    SHOAL_CFLAGS="$SHOAL_CFLAGS -Werror=implicit-function-declaration"
    AS_VAR_IF([enable_werror], [yes], [SHOAL_CFLAGS="$SHOAL_CFLAGS -Werror"])
    AC_SUBST([SHOAL_CFLAGS])
])

# SHOAL_SANITIZERS(LIST or "no"): adds the compiler's flags to SHOAL_CFLAGS and SHOAL_LDFLAGS.
AC_DEFUN([SHOAL_SANITIZERS], [
    AC_SUBST([SHOAL_LDFLAGS])
    AS_CASE([$1],
        [no], [],
        [yes], [AC_MSG_ERROR([--enable-sanitizers needs a list: address,undefined or thread])],
        [shoal_sanitize="-fsanitize=$1 -fno-omit-frame-pointer -fno-sanitize-recover=all"
         SHOAL_CFLAGS="$SHOAL_CFLAGS $shoal_sanitize"
         SHOAL_LDFLAGS="$shoal_sanitize"
         AC_MSG_CHECKING([whether $CC can sanitize with $1])
         shoal_saved_CFLAGS=$CFLAGS
         CFLAGS="$CFLAGS $shoal_sanitize"
         AC_LINK_IFELSE([AC_LANG_PROGRAM], [AC_MSG_RESULT([yes])],
             [AC_MSG_RESULT([no])
              AC_MSG_ERROR([$CC cannot link a program with -fsanitize=$1])])
         CFLAGS=$shoal_saved_CFLAGS])
])

# SHOAL_STATIC_LIBURING(no, yes or auto): LIBURING_LIBS names the archive, if a shared object can be made with it.
AC_DEFUN([SHOAL_STATIC_LIBURING], [
    AS_VAR_IF([enable_static_liburing], [no], [], [
        AC_MSG_CHECKING([whether liburing.a can be linked into a shared object])
        shoal_static_liburing=`AS_ECHO(["$LIBURING_LIBS"]) | $SED 's/-luring/-l:liburing.a/'`
        shoal_saved_LIBS=$LIBS shoal_saved_CFLAGS=$CFLAGS
        LIBS="-shared $shoal_static_liburing $LIBS" CFLAGS="$CFLAGS -fPIC"
        AC_LINK_IFELSE([AC_LANG_SOURCE([extern int io_uring_queue_init(unsigned, void *, unsigned);
                int setup(void *ring) { return io_uring_queue_init(2, ring, 0); }])],
            [AC_MSG_RESULT([yes])
             LIBURING_LIBS=$shoal_static_liburing],
            [AC_MSG_RESULT([no])
             AS_VAR_IF([enable_static_liburing], [yes], [AC_MSG_ERROR([there is no liburing.a to be linked])])])
        LIBS=$shoal_saved_LIBS CFLAGS=$shoal_saved_CFLAGS])
])

# SHOAL_PYTHON(yes, no or PROGRAM): PYTHON, PYTHON_CPPFLAGS, PYTHON_EXT_SUFFIX, WITH_PYTHON, pythondir and pyexecdir.
AC_DEFUN([SHOAL_PYTHON], [
    AS_CASE([$1],
        [no], [PYTHON=:],
        [yes], [],
        [PYTHON=`command -v "$1"` || AC_MSG_ERROR([--with-python: there is no program $1])])
    AS_VAR_IF([PYTHON], [:], [shoal_python_summary=no], [
        AM_PATH_PYTHON([3.10])
        # Where this interpreter really looks under our prefix, if it looks there (Debian: dist-packages).
        shoal_test_prefix=$prefix
        AS_VAR_IF([prefix], [NONE], [shoal_test_prefix=$ac_default_prefix])
        shoal_site=`$PYTHON -c 'import site, sys
lib = sys.argv[[1]] + "/lib"
print(next((p[[len(lib):]] for p in site.getsitepackages() if p.startswith(lib + "/")), ""))' "$shoal_test_prefix"`
        AS_IF([test -n "$shoal_site"], [pyexecdir="\${exec_prefix}/lib$shoal_site"])
        AS_IF([$PYTHON -c 'import sys, sysconfig; sys.exit(not sysconfig.get_config_var("Py_GIL_DISABLED"))'],
            [AC_MSG_ERROR([$PYTHON is a free-threaded build, which Shoal does not support: take one with the GIL])])
        AC_MSG_CHECKING([for the headers of $PYTHON])
        shoal_python_include=`$PYTHON -c 'import sysconfig; print(sysconfig.get_path("include"))'`
        AS_IF([test -f "$shoal_python_include/Python.h"], [AC_MSG_RESULT([$shoal_python_include])],
            [AC_MSG_RESULT([no])
             AC_MSG_ERROR([no Python.h in $shoal_python_include. Install it (Debian: python3-dev), or --without-python])])
        PYTHON_CPPFLAGS="-isystem $shoal_python_include"
        PYTHON_EXT_SUFFIX=`$PYTHON -c 'import sysconfig; print(sysconfig.get_config_var("EXT_SUFFIX"))'`
        shoal_python_summary="$PYTHON ($PYTHON_VERSION), installed in $pyexecdir"
        AC_SUBST([PYTHON_CPPFLAGS])
        AC_SUBST([PYTHON_EXT_SUFFIX])])
    AM_CONDITIONAL([WITH_PYTHON], [test "x$PYTHON" != x:])
])

# SHOAL_TEST_WRAP: linker flags that let the C tests make system calls fail; the list of calls is TEST_FAULTS in support.h.
AC_DEFUN([SHOAL_TEST_WRAP], [
    AC_SUBST([CONFIG_STATUS_DEPENDENCIES], ['$(top_srcdir)/tests/c/support.h'])
    TEST_WRAP=`$SED -n 's/^ *X(\(@<:@a-z0-9_@:>@*\)).*/-Wl,--wrap=shoal__sys_\1/p' "$srcdir/tests/c/support.h" | tr '\n' ' '`
    AC_SUBST([TEST_WRAP])
])

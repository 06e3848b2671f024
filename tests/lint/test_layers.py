# SPDX-License-Identifier: BSD-3-Clause
"""Who may use whom. docs/architecture.md draws the layers; this is where a wrong include or import fails.

pool/shoal    Python: the standard library, numpy if it is there, and shoal._ext
pool/ext      Python.h, <shoal/...> as any user of the library, ../pickle/{pickle,sink}.h
pool/pickle   Python.h and its own headers; no shared memory
include/      libc and each other along the parts below
lib/          libc, liburing in the io_uring doorbells; system calls in sys.c only
"""

import ast
import re
import sys

from tree import c_files, includes, name_of, objects, python_files, run

# The parts of the library and what each may use; a file belongs to the part that its name begins with.
PARTS = {
    "base": (("atomic", "layout", "sys", "export", "killpoint"), set()),
    "region": (("region", "memory"), set()),
    "ring": (("ring",), {"region"}),
    "arena": (("arena",), {"region"}),
    "shadow": (("shadow",), {"region"}),
    "peer": (("peer", "lifeline"), set()),
    "doorbell": (("doorbell", "waiter", "uring", "clock"), set()),
    "taskqueue": (("taskqueue",), {"region", "doorbell"}),
    "channel": (("channel",), {"region", "ring", "arena", "peer", "doorbell"}),
    "whole": (("shoal", "error"), {"region", "ring", "arena", "shadow", "peer", "doorbell", "taskqueue", "channel"}),
}

# Those that hold calls and hardly any constants; <fcntl.h>, <sys/mman.h> and others are wanted for what they define.
SYSTEM_HEADERS = {"<unistd.h>", "<sys/syscall.h>", "<sys/socket.h>", "<sys/ioctl.h>", "<sys/prctl.h>"}

# What stands outside of the parts, and why.
EXCEPTIONS = {("lib/doorbell_probe.c", "<shoal/shoal.h>"): "shoal_strerror, for the reason of a failed probe"}

SYSTEM_CALLS = set(
    "mmap munmap mremap mprotect madvise memfd_create shm_open shm_unlink open openat close read write pread pwrite "
    "pipe pipe2 dup dup2 dup3 fcntl ftruncate fallocate fstat stat unlink rename fork vfork clone execve waitpid "
    "waitid wait4 kill tgkill poll ppoll select pselect epoll_wait eventfd eventfd_read eventfd_write syscall socket "
    "sendmsg recvmsg ioctl flock prctl sched_getcpu sched_yield sched_setaffinity nanosleep clock_nanosleep usleep "
    "sigprocmask pthread_sigmask sem_init sem_post sem_wait sem_timedwait sem_clockwait sem_trywait geteuid".split()
)


def part_of(stem):
    for part, (prefixes, _) in PARTS.items():
        if any(re.fullmatch(f"{prefix}(_.*)?", stem) for prefix in prefixes):
            return part
    return None


def broken(rule, *under):
    """All includes under these directories for which rule(path, spelling) is false."""
    return [
        f"{name_of(path)}:{number}: {spelling}"
        for path in c_files(*under)
        for number, spelling in includes(path)
        if not rule(path, spelling)
    ]


def test_python_h_is_included_only_under_pool():
    assert not broken(lambda path, spelling: spelling != "<Python.h>", "include", "lib", "tests", "examples", "bench")


def test_atomics_come_from_one_header():
    assert not broken(lambda path, spelling: name_of(path) == "lib/atomic.h" or spelling != "<stdatomic.h>")
    other = re.compile(r"\b(__atomic_\w+|__sync_\w+|_Atomic\b)")
    found = [
        f"{name_of(path)}: {match[0]}"
        for path in c_files("lib", "include")
        if path.name != "atomic.h"
        for match in other.finditer(path.read_text())
    ]
    assert not found


def test_headers_of_system_calls_are_included_in_sys_only():
    def allowed(path, spelling):
        return path.stem == "sys" or (spelling not in SYSTEM_HEADERS and not spelling.startswith("<linux/"))

    assert not broken(allowed, "lib", "include")


def test_system_calls_are_made_in_sys_only():
    found = []
    for path in objects("lib"):
        if re.search(r"(^|-)sys\.o$", path.name):
            continue
        undefined = {line.split()[-1].split("@")[0] for line in run("nm", "-u", path).splitlines() if line.strip()}
        found += [f"{path.name}: {call}" for call in sorted(undefined & SYSTEM_CALLS)]
    assert not found


def test_liburing_is_used_by_the_io_uring_doorbells_only():
    assert not broken(lambda path, spelling: spelling != "<liburing.h>" or "uring" in path.stem)


def test_every_library_file_belongs_to_a_part():
    unknown = [name_of(path) for path in c_files("lib", "include") if part_of(path.stem) is None]
    assert not unknown, "say in PARTS which part of the library these are"


def test_parts_of_the_library_use_only_what_they_may():
    def allowed(path, spelling):
        name = spelling[1:-1]
        if spelling.startswith("<") and not name.startswith("shoal/"):
            return True
        if (name_of(path), spelling) in EXCEPTIONS:
            return True
        own, other = part_of(path.stem), part_of(name.removeprefix("shoal/").removesuffix(".h"))
        return other in ("base", own) or (own in PARTS and other in PARTS[own][1])

    assert not broken(allowed, "lib", "include")


def test_public_headers_need_nothing_private():
    assert not broken(lambda path, spelling: spelling.startswith("<"), "include")


def test_the_extension_uses_what_any_user_of_the_library_gets():
    def allowed(path, spelling):
        name = spelling[1:-1]
        return spelling.startswith("<") or "/" not in name or name in ("../pickle/pickle.h", "../pickle/sink.h")

    assert not broken(allowed, "pool/ext")


def test_the_pickler_knows_no_shared_memory():
    def allowed(path, spelling):
        if path.name == "deep_stack.c" and spelling in ("<sys/mman.h>", "<sys/resource.h>", "<unistd.h>"):
            return True  # stacks are private memory
        if path.name == "large_pages.c" and spelling == "<sys/mman.h>":
            return True  # so are Python's arenas
        if spelling.startswith("<"):
            return not re.match(r"<(shoal/|sys/|linux/|unistd|fcntl|semaphore|pthread|liburing)", spelling)
        return "/" not in spelling

    assert not broken(allowed, "pool/pickle")


def test_examples_use_the_public_headers_only():
    assert not broken(lambda path, spelling: spelling.startswith("<"), "examples")


def test_no_c_file_is_included():
    assert not broken(lambda path, spelling: not spelling[1:-1].endswith(".c"))


def is_for_types(node):
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


IF_INSTALLED = {"threadpoolctl"}


def test_the_python_package_imports_the_standard_library_numpy_and_itself():
    found = []
    for path in python_files("pool/shoal"):
        tree = ast.parse(path.read_text())
        for_types = {id(inner) for node in ast.walk(tree) if is_for_types(node) for inner in ast.walk(node)}
        for node in ast.walk(tree):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                names = [node.module]
            for name in names:
                if id(node) in for_types and name == "typing_extensions":
                    continue
                if name.split(".")[0] not in sys.stdlib_module_names | {"numpy", "shoal"} | IF_INSTALLED:
                    found.append(f"{name_of(path)}:{node.lineno}: {name}")
    assert not found


def test_numpy_stays_optional():
    """Imported inside functions, or for the type checker only: `import shoal` works without it."""
    found = []
    for path in python_files("pool/shoal"):
        for node in ast.parse(path.read_text()).body:
            text = ast.unparse(node)
            if isinstance(node, (ast.Import, ast.ImportFrom)) and re.search(r"\bnumpy\b", text):
                found.append(f"{name_of(path)}:{node.lineno}: {text}")
    assert not found


def test_every_sync_label_stands_at_both_ends():
    """A release and its acquire carry the same `SYNC: <label>`, so that the pairs can be found."""
    places = {}
    for path in c_files("lib", "include", "pool"):
        for number, line in enumerate(path.read_text().splitlines(), 1):
            for label in re.findall(r"SYNC: ([\w-]+)", line):
                places.setdefault(label, []).append(f"{name_of(path)}:{number}")
    alone = {label: where for label, where in places.items() if len(where) < 2}
    assert not alone

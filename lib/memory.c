/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * memory.c - how much memory this process could still take.
 *
 * The problem: the machine's free memory says nothing in a container. The kernel kills whoever exceeds a memory
 * cgroup's limit, and fallocate on shared memory is no exception. So we look before we take.
 *
 * Where it looks: MemAvailable in /proc/meminfo; then the memory cgroups of this process, v1 and v2, from its own up to
 * the top of what is mounted here (/proc/self/cgroup says which, /proc/self/mountinfo where). Each leaves
 * limit - (usage - inactive file cache), because that cache goes first. The least of all counts.
 *
 * What it costs: a handful of small files, about 0.1 ms.
 * What it does not do: it is a snapshot; others may take the memory in the next moment. Swap is not counted.
 * A file that is missing or cannot be understood is no limit.
 */
#include "region.h"

#include "sys.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#define FILE_MAX_BYTES (256u << 10) /* mountinfo of a machine with many containers */

struct cgroup_kind {
    const char *filesystem;    /* in mountinfo */
    const char *limit_file;    /* a number, or "max" */
    const char *usage_file;    /* a number */
    const char *inactive_line; /* of memory.stat */
};

static const struct cgroup_kind v1_kind = {
    .filesystem = "cgroup",
    .limit_file = "memory.limit_in_bytes",
    .usage_file = "memory.usage_in_bytes",
    .inactive_line = "total_inactive_file",
};

static const struct cgroup_kind v2_kind = {
    .filesystem = "cgroup2",
    .limit_file = "memory.max",
    .usage_file = "memory.current",
    .inactive_line = "inactive_file",
};

/* ---- files and words ---- */

/* The whole file, zero-terminated, to be freed; NULL if it cannot be read or is larger than we believe. */
static char *read_file(const char *path)
{
    int fd = shoal__sys_open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
    if (fd < 0)
        return NULL;
    size_t size = 0, capacity = 4096;
    char *text = malloc(capacity + 1);
    while (text) {
        ssize_t got = shoal__sys_read(fd, text + size, capacity - size);
        if (got == -EINTR)
            continue;
        if (got <= 0)
            break;
        size += (size_t)got;
        if (size < capacity)
            continue;
        capacity *= 2;
        char *larger = capacity <= FILE_MAX_BYTES ? realloc(text, capacity + 1) : NULL;
        if (!larger)
            free(text);
        text = larger;
    }
    shoal__sys_close(fd);
    if (text)
        text[size] = '\0';
    return text;
}

/* A decimal number at the start of text. "max" and anything else that is not a number: false. */
static bool parse_number(const char *text, uint64_t *ret_value)
{
    uint64_t value = 0;
    if (!isdigit((unsigned char)*text))
        return false;
    for (; isdigit((unsigned char)*text); text++) {
        uint64_t digit = (uint64_t)(*text - '0');
        if (value > (UINT64_MAX - digit) / 10)
            return false;
        value = value * 10 + digit;
    }
    if (*text != '\0' && !isspace((unsigned char)*text))
        return false;
    *ret_value = value;
    return true;
}

/* The number after `key` at the start of a line. */
static bool find_number(const char *text, const char *key, uint64_t *ret_value)
{
    size_t length = strlen(key);
    for (const char *line = text; line; line = strchr(line, '\n') ? strchr(line, '\n') + 1 : NULL) {
        if (strncmp(line, key, length) != 0 || (line[length] != ' ' && line[length] != ':'))
            continue;
        return parse_number(line + length + 1 + strspn(line + length + 1, " \t"), ret_value);
    }
    return false;
}

static bool read_number(const char *directory, const char *file, const char *key, uint64_t *ret_value)
{
    char path[PATH_MAX];
    size_t length = strlen(directory), file_length = strlen(file);
    if (length + file_length + 2 > sizeof(path))
        return false;
    memcpy(path, directory, length);
    path[length] = '/';
    memcpy(path + length + 1, file, file_length + 1);
    char *text = read_file(path);
    bool found = text && (key ? find_number(text, key, ret_value) : parse_number(text, ret_value));
    free(text);
    return found;
}

/* ---- where the cgroup is ---- */

/* The path of this process in the hierarchy: "0::/path" (v2) or "7:cpu,memory:/path" (v1). Points into text. */
static char *find_own_path(char *text, const struct cgroup_kind *kind)
{
    for (char *save, *line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
        char *controllers = strchr(line, ':');
        char *path = controllers ? strchr(controllers + 1, ':') : NULL;
        if (!path)
            continue;
        *path++ = '\0';
        controllers++;
        if (kind == &v2_kind && strncmp(line, "0:", 2) == 0 && *controllers == '\0')
            return path;
        for (char *inner, *word = strtok_r(controllers, ",", &inner); word; word = strtok_r(NULL, ",", &inner))
            if (kind == &v1_kind && strcmp(word, "memory") == 0)
                return path;
    }
    return NULL;
}

static bool has_word(const char *list, const char *word)
{
    size_t length = strlen(word);
    for (const char *at = list; (at = strstr(at, word)); at += length)
        if ((at == list || at[-1] == ',') && (at[length] == '\0' || at[length] == ','))
            return true;
    return false;
}

/* mountinfo writes blanks in paths as \040 and so on. */
static void unescape(char *text)
{
    char *out = text;
    for (char *in = text; *in; in++, out++) {
        bool octal = in[0] == '\\' && in[1] >= '0' && in[1] <= '3' && in[2] >= '0' && in[2] <= '7' && in[3] >= '0' &&
                     in[3] <= '7';
        *out = octal ? (char)((in[1] - '0') * 64 + (in[2] - '0') * 8 + (in[3] - '0')) : *in;
        in += octal ? 3 : 0;
    }
    *out = '\0';
}

/* The mount of this kind: which part of the hierarchy it shows (*ret_root) and where. Both point into text. */
static bool find_mount(char *text, const struct cgroup_kind *kind, char **ret_root, char **ret_mount)
{
    for (char *save, *line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
        /* 36 35 98:0 /root /mount options [tags...] - type source super-options */
        char *tail = strstr(line, " - ");
        char *fields[5], *inner;
        int count = 0;
        if (!tail)
            continue;
        *tail = '\0';
        char *type = strtok_r(tail + 3, " ", &inner);
        char *source = type ? strtok_r(NULL, " ", &inner) : NULL;
        char *options = source ? strtok_r(NULL, " ", &inner) : NULL;
        if (!type || strcmp(type, kind->filesystem) != 0)
            continue;
        if (kind == &v1_kind && !(options && has_word(options, "memory")))
            continue;
        for (char *word = strtok_r(line, " ", &inner); word && count < 5; word = strtok_r(NULL, " ", &inner))
            fields[count++] = word;
        if (count < 5)
            continue;
        unescape(fields[3]);
        unescape(fields[4]);
        *ret_root = fields[3];
        *ret_mount = fields[4];
        return true;
    }
    return false;
}

/*
 * The directory of our cgroup: the mount, and our path as seen from the mount's root. A path that the mount does not
 * show (a container without a cgroup namespace, or "/.." from inside one): the mount's own directory is the nearest
 * known.
 */
static bool join_directory(char *directory, size_t capacity, const char *mount, const char *root, const char *path)
{
    size_t root_length = strcmp(root, "/") == 0 ? 0 : strlen(root);
    if (strncmp(path, root, root_length) != 0 || (path[root_length] != '\0' && path[root_length] != '/') ||
        strstr(path, ".."))
        path = "";
    else
        path += root_length;
    size_t mount_length = strlen(mount), path_length = strlen(path);
    if (mount_length + path_length + 1 > capacity)
        return false;
    memcpy(directory, mount, mount_length);
    memcpy(directory + mount_length, path, path_length + 1);
    for (size_t end = mount_length + path_length; end > mount_length && directory[end - 1] == '/'; end--)
        directory[end - 1] = '\0';
    return true;
}

/* ---- what it leaves ---- */

static uint64_t left_in_directory(const char *directory, const struct cgroup_kind *kind)
{
    uint64_t limit, usage, inactive = 0;
    if (!read_number(directory, kind->limit_file, NULL, &limit) ||
        !read_number(directory, kind->usage_file, NULL, &usage))
        return UINT64_MAX;
    if (limit >= (uint64_t)INT64_MAX / 2) /* how v1 writes "none" */
        return UINT64_MAX;
    read_number(directory, "memory.stat", kind->inactive_line, &inactive);
    usage -= inactive < usage ? inactive : usage;
    return limit > usage ? limit - usage : 0;
}

static uint64_t left_in_cgroups(const struct cgroup_kind *kind)
{
    char directory[PATH_MAX];
    char *own_text = read_file("/proc/self/cgroup");
    char *mount_text = read_file("/proc/self/mountinfo");
    char *path = own_text ? find_own_path(own_text, kind) : NULL;
    char *root, *mount;
    uint64_t least = UINT64_MAX;

    if (path && mount_text && find_mount(mount_text, kind, &root, &mount) &&
        join_directory(directory, sizeof(directory), mount, root, path)) {
        size_t mount_length = strlen(mount);
        for (;;) {
            uint64_t left = left_in_directory(directory, kind);
            least = left < least ? left : least;
            char *slash = strrchr(directory, '/');
            if (!slash || (size_t)(slash - directory) < mount_length)
                break;
            *slash = '\0';
        }
    }
    free(own_text);
    free(mount_text);
    return least;
}

int shoal_memory_available(uint64_t *ret_bytes)
{
    uint64_t kib, least = UINT64_MAX;
    char *text = read_file("/proc/meminfo");
    if (text && find_number(text, "MemAvailable", &kib) && kib < UINT64_MAX / 1024)
        least = kib * 1024;
    free(text);
    uint64_t v1 = left_in_cgroups(&v1_kind), v2 = left_in_cgroups(&v2_kind);
    least = v1 < least ? v1 : least;
    least = v2 < least ? v2 : least;
    if (least == UINT64_MAX)
        return -ENODATA;
    *ret_bytes = least;
    return 0;
}

int shoal__memory_check(uint64_t size_bytes)
{
    uint64_t available;
    if (shoal_memory_available(&available) < 0)
        return 0; /* nothing is known, so nothing forbids it */
    /* An eighth more: the pages of tables, and what others take at the same moment. */
    return size_bytes > available || size_bytes / 8 > available - size_bytes ? -ENOMEM : 0;
}

/* model_carry.c: see model_carry.h. The message: the number of the part or file to open, then for each file its name, its
 * length, and its first bytes. */
#include "engine/file/model_carry.h"

#include "engine/file/format.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <unistd.h>
#include <xxhash.h>

enum { MOST_FILES = 2048, MOST_BESIDE = 64 << 20 };

static const char *const beside[] = {
    "config.json", "generation_config.json", "quantize_config.json", "quant_config.json", "hf_quant_config.json", "tokenizer.json",
    "tokenizer_config.json", "tokenizer.model", "special_tokens_map.json",
    "added_tokens.json", "vocab.json", "merges.txt", "chat_template.json", "chat_template.jinja", "model.safetensors.index.json", "adapter_config.json"};

static const char *base_name(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

static void put_file(struct buf *out, const char *name, int64_t whole, const void *data, int64_t n)
{
    buf_u16(out, (uint16_t)strlen(name));
    buf_puts(out, name);
    buf_u64(out, (uint64_t)whole);
    buf_u64(out, (uint64_t)n);
    if (n) buf_put(out, data, (size_t)n);
}

/* Where the first tensor of a part begins: all before it is header. */
static int64_t header_bytes(const struct eng_model_file *f, int32_t part)
{
    int64_t n = f->parts[part].bytes;
    const struct model_tensor *t = f->raw ? f->raw : f->tensors; /* derived ones lie nowhere */
    for (int64_t i = 0; i < (f->raw ? f->n_raw : f->n_tensors); i++)
        if (t[i].part == part) n = MIN(n, t[i].offset);
    return n;
}

enum err eng_model_carry_pack(const struct eng_model_file *f, struct buf *out)
{
    enum err rc = OK;
    struct buf one = {0};
    bool dir = eng_model_file_is_dir(f), there;
    buf_u8(out, dir);
    for (size_t i = 0; i < COUNT_OF(beside) && dir; i++) {
        TRY(eng_model_file_beside(f, beside[i], MOST_BESIDE, &one, &there));
        if (there) put_file(out, beside[i], (int64_t)one.len, one.data, (int64_t)one.len);
    }
    for (int32_t p = 0; p < f->n_parts; p++) {
        int64_t n = header_bytes(f, p);
        buf_clear(&one);
        buf_reserve(&one, (size_t)n + 1);
        TRY(eng_part_read(&f->parts[p], 0, n, one.data));
        put_file(out, base_name(f->parts[p].path), f->parts[p].bytes, one.data, n);
    }
out:
    buf_free(&one);
    return rc;
}

/* ---- the other side ---- */

static bool is_plain(const char *name, size_t n)
{
    if (!n || n > 255 || *name == '.') return false;
    for (size_t i = 0; i < n; i++)
        if (name[i] == '/' || (unsigned char)name[i] < ' ') return false;
    return true;
}

static enum err write_file(const char *dir, const char *name, int64_t whole, const void *data, size_t n)
{
    enum err rc = OK;
    char *path = xasprintf("%s/%s", dir, name);
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    size_t at = 0;
    while (fd >= 0 && at < n) {
        ssize_t k = write(fd, (const char *)data + at, n - at);
        if (k < 0 && errno == EINTR) continue;
        if (k <= 0) break;
        at += (size_t)k;
    }
    if (fd < 0 || at < n || ftruncate(fd, whole))
        rc = err_raise(ERR_IO, "cannot keep the model's headers in %s: %s", path, strerror(errno));
    if (fd >= 0) close(fd);
    free(path);
    return rc;
}

static void keep_beside(struct eng_model_file *f, const char *name, const void *data, size_t n)
{
    f->beside = xrealloc(f->beside, (size_t)(f->n_beside + 1) * sizeof *f->beside);
    f->beside[f->n_beside++] = (struct eng_beside){xstrdup(name), xmalloc(n + 1), n};
    memcpy(f->beside[f->n_beside - 1].data, data, n);
}

/* Removes what unpack wrote, and only that: the names are those of the message. */
static void remove_files(const char *dir, struct rd r)
{
    (void)rd_u8(&r);
    while (!r.bad && rd_left(&r)) {
        uint16_t len = rd_u16(&r);
        const char *name = rd_bytes(&r, len);
        (void)rd_u64(&r);
        (void)rd_bytes(&r, rd_u64(&r));
        if (!name || !is_plain(name, len)) continue;
        char *path = xasprintf("%s/%.*s", dir, (int)len, name);
        unlink(path);
        free(path);
    }
    rmdir(dir);
}

/* Every file of the message into dir. first: the name of the first part. */
static enum err unpack(const char *dir, struct rd *r, bool *is_dir, char first[256])
{
    first[0] = 0;
    *is_dir = rd_u8(r) != 0;
    for (int32_t n = 0; rd_left(r) && !r->bad; n++) {
        uint16_t len = rd_u16(r);
        const char *p = rd_bytes(r, len);
        uint64_t whole = rd_u64(r), bytes = rd_u64(r);
        const void *data = rd_bytes(r, bytes);
        if (r->bad || !is_plain(p, len) || whole > INT64_MAX || bytes > whole || n == MOST_FILES)
            return err_raise(ERR_LINK_PROTOCOL, "the model's headers that arrived are damaged at file %d", n);
        char name[256];
        snprintf(name, sizeof name, "%.*s", (int)len, p);
        if (!first[0] && !*is_dir) memcpy(first, name, sizeof name);
        enum err e = write_file(dir, name, (int64_t)whole, data, bytes);
        if (e) return e;
    }
    return r->bad ? err_raise(ERR_LINK_PROTOCOL, "the model's headers that arrived are cut short") : OK;
}

static void keep_all_beside(struct eng_model_file *f, struct rd r)
{
    (void)rd_u8(&r);
    while (!r.bad && rd_left(&r)) {
        uint16_t len = rd_u16(&r);
        const char *p = rd_bytes(&r, len);
        uint64_t whole = rd_u64(&r), bytes = rd_u64(&r);
        const void *data = rd_bytes(&r, bytes);
        char name[256];
        if (!p || !data || whole != bytes) continue;
        snprintf(name, sizeof name, "%.*s", (int)len, p);
        keep_beside(f, name, data, bytes);
    }
}

enum err eng_model_carry_open(struct eng_model_file **out, const void *data, size_t n, const char *path)
{
    enum err rc;
    bool is_dir = false;
    char first[256];
    struct rd r = rd_of(data, n);
    struct eng_model_file *f = NULL;
    const char *tmp = getenv("TMPDIR");
    char *dir = xasprintf("%s/tessera-headers-XXXXXX", tmp && *tmp ? tmp : "/tmp"), *at = NULL;
    if (!mkdtemp(dir)) {
        rc = err_raise(ERR_IO, "cannot make a directory for the model's headers, %s: %s", dir, strerror(errno));
        free(dir);
        return rc;
    }
    TRY(unpack(dir, &r, &is_dir, first));
    at = is_dir ? xstrdup(dir) : xasprintf("%s/%s", dir, first);
    TRY(eng_model_file_open(&f, at));
    if (is_dir) keep_all_beside(f, rd_of(data, n));
    free(f->path);
    f->path = xstrdup(path);
    *out = f;
out:
    remove_files(dir, rd_of(data, n));
    free(dir);
    free(at);
    return rc;
}

/* ---- where a file lies ---- */

static bool is_network(int fd)
{
    static const uint32_t kinds[] = {0x6969 /* NFS */,      0x517B /* SMB */,     0xFF534D42 /* CIFS */,   0xFE534D42 /* SMB2 */,
                                     0x00C36400 /* Ceph */, 0x0BD00BD0 /* Lustre */, 0x47504653 /* GPFS */, 0x65735546 /* FUSE */,
                                     0x5346414F /* AFS */,  0x19830326 /* BeeGFS */, 0x01161970 /* GFS2 */, 0x01021997 /* 9P */,
                                     0x7461636f /* OCFS2 */};
    struct statfs s;
    if (fstatfs(fd, &s)) return false;
    for (size_t i = 0; i < COUNT_OF(kinds); i++)
        if ((uint32_t)s.f_type == kinds[i]) return true;
    return false;
}

static uint64_t kernel_hash(void)
{
    char id[64] = "";
    int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? 0 : read(fd, id, sizeof id - 1);
    if (fd >= 0) close(fd);
    return XXH3_64bits(id, (size_t)MAX(n, 0));
}

enum err eng_model_place(const struct eng_model_file *f, struct eng_model_place *out)
{
    struct stat st;
    uint64_t version = 1, key = 0;
    bool remote = false;
    for (int32_t p = 0; p < f->n_parts; p++) {
        if (fstat(f->parts[p].fd, &st))
            return err_raise(ERR_IO, "%s: cannot look at the file: %s", f->parts[p].path, strerror(errno));
        int64_t what[] = {st.st_size, st.st_mtim.tv_sec, st.st_mtim.tv_nsec};
        version = XXH3_64bits_withSeed(what, sizeof what, version);
        if (p) continue;
        remote = is_network(f->parts[p].fd);
        uint64_t where[] = {(uint64_t)st.st_ino, remote ? 0 : (uint64_t)st.st_dev, remote ? 0 : kernel_hash()};
        key = XXH3_64bits_withSeed(where, sizeof where, remote ? version : 0);
    }
    *out = (struct eng_model_place){.key = key ? key : 1, .version = version, .remote = remote};
    return OK;
}

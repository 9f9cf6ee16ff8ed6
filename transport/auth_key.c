/* auth_key.c: where the cluster key comes from: a file that only its owner can read, or the
 * environment. Never argv. */
#include "transport/auth.h"

#include <sodium.h>

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { TEXT_MIN_BYTES = 16, TEXT_MAX_BYTES = 4096 };
static const char env_name[] = "TESSERA_CLUSTER_KEY";

void trn_auth_key_generate(char out[65])
{
    uint8_t raw[AUTH_KEY_BYTES];
    ASSERT(sodium_init() >= 0);
    randombytes_buf(raw, sizeof raw);
    sodium_bin2hex(out, 65, raw, sizeof raw);
    sodium_memzero(raw, sizeof raw);
}

/* Text without the line break an editor leaves behind. */
static size_t trimmed(const char *text, size_t n)
{
    while (n && strchr(" \t\r\n", text[n - 1])) n--;
    return n;
}

static enum err key_of(struct auth_key *out, const char *text, size_t n, const char *source)
{
    static const uint8_t label[crypto_auth_hmacsha256_KEYBYTES] = "tessera cluster key 1";
    ASSERT(sodium_init() >= 0);
    n = trimmed(text, n);
    if (n < TEXT_MIN_BYTES)
        return err_raise(ERR_BAD_CONFIG,
                         "cluster key from %s has %zu bytes, needed at least %d; make one with "
                         "`head -c 32 /dev/urandom | base64`",
                         source, n, TEXT_MIN_BYTES);
    crypto_auth_hmacsha256(out->bytes, (const uint8_t *)text, n, label);
    return OK;
}

enum err trn_auth_key_of_text(struct auth_key *out, const char *text)
{
    return key_of(out, text, strlen(text), "text");
}

static enum err check_file(int fd, const char *file)
{
    struct stat st;
    if (fstat(fd, &st))
        return err_raise(ERR_BAD_CONFIG, "cluster key file %s: %s", file, strerror(errno));
    if (!S_ISREG(st.st_mode))
        return err_raise(ERR_BAD_CONFIG, "cluster key file %s is not a regular file", file);
    if (st.st_uid != geteuid())
        return err_raise(
            ERR_BAD_CONFIG,
            "cluster key file %s belongs to user %u, this process runs as %u; copy it or "
            "`chown` it",
            file, (unsigned)st.st_uid, (unsigned)geteuid());
    if (st.st_mode & 077)
        return err_raise(ERR_BAD_CONFIG,
                         "cluster key file %s has mode %04o, so others can read it; `chmod 600 %s`",
                         file, (unsigned)(st.st_mode & 07777), file);
    return OK;
}

static enum err read_all(int fd, const char *file, char *text, size_t cap, size_t *n)
{
    *n = 0;
    while (*n < cap) {
        ssize_t got = read(fd, text + *n, cap - *n);
        if (got < 0 && errno == EINTR) continue;
        if (got < 0)
            return err_raise(ERR_BAD_CONFIG, "cluster key file %s: %s", file, strerror(errno));
        if (!got) return OK;
        *n += (size_t)got;
    }
    return err_raise(ERR_BAD_CONFIG, "cluster key file %s is longer than %d bytes", file,
                     TEXT_MAX_BYTES);
}

static enum err load_file(struct auth_key *out, const char *file)
{
    enum err rc = OK;
    char text[TEXT_MAX_BYTES + 1];
    size_t n = 0;
    int fd = open(file, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* not blocking: it may be a FIFO */
    if (fd < 0) TRY(err_raise(ERR_BAD_CONFIG, "cluster key file %s: %s", file, strerror(errno)));
    TRY(check_file(fd, file));
    TRY(read_all(fd, file, text, sizeof text, &n));
    TRY(key_of(out, text, n, file));
out:
    sodium_memzero(text, sizeof text);
    if (fd >= 0) close(fd);
    return rc;
}

enum err trn_auth_key_load(struct auth_key *out, const char *file_or_null)
{
    if (file_or_null) return load_file(out, file_or_null);
    const char *text = getenv(env_name);
    if (!text)
        return err_raise(ERR_BAD_CONFIG, "no cluster key: give --cluster-key-file FILE (mode 0600) or set %s",
                         env_name);
    return key_of(out, text, strlen(text), env_name);
}

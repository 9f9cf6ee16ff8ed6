/* lan_switch.c: a LAN in one process, for tests of several hosts on one machine: it makes a TAP device in each named network
 * namespace and forwards frames between them, each port with a rate and a delay. For kernels without netem.
 *
 *   lan_switch RATE_MBIT DELAY_US NAMESPACE...      address of the i-th: 10.78.0.(i+1)/24 on eth0
 *
 * Says "ready" on stdout, then takes lines on stdin: "rate MBIT", "delay US", "cut PORT", "join PORT", "quit"; ends with its
 * stdin. A frame leaves its port when the port has sent those before it at its rate, and arrives the delay later; a port that
 * has QUEUE frames waiting drops the next, as switches do. */
#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

enum { PORTS = 16, QUEUE = 2048, FRAME = 9216 + 64, MTU = 9000, OVERHEAD = 24, BATCH = 32, SPIN_NS = 20000 };

struct frame {
    int64_t due_ns;
    int32_t n;
    uint8_t data[FRAME];
};

struct port {
    int fd;
    bool cut, known;
    uint8_t mac[6];
    int64_t free_ns;          /* when it has sent all it has taken */
    struct frame *queue;      /* [QUEUE] */
    uint32_t head, tail;
};

static struct port ports[PORTS];
static int32_t n_ports;
static double rate_mbit, delay_us;

static int64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

/* Its TAP, made inside the namespace; this process comes back to its own. */
static bool open_port(struct port *p, const char *ns, int32_t i, int self)
{
    char path[256], command[256];
    struct ifreq r = {.ifr_flags = IFF_TAP | IFF_NO_PI};
    snprintf(path, sizeof path, "/run/netns/%s", ns);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || setns(fd, CLONE_NEWNET)) return false;
    snprintf(r.ifr_name, sizeof r.ifr_name, "eth0");
    p->fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
    bool ok = p->fd >= 0 && !ioctl(p->fd, TUNSETIFF, &r);
    snprintf(command, sizeof command, "ip link set lo up && ip addr add 10.78.0.%d/24 dev eth0 && ip link set eth0 mtu %d txqueuelen 1000 up", i + 1, MTU);
    ok = ok && !system(command);
    close(fd);
    p->queue = malloc(sizeof *p->queue * QUEUE);
    return !setns(self, CLONE_NEWNET) && ok && p->queue;
}

static void take(struct port *p, const uint8_t *data, int32_t n, int64_t now)
{
    uint32_t next = (p->tail + 1) % QUEUE;
    if (p->cut || next == p->head) return;
    p->free_ns = (p->free_ns > now ? p->free_ns : now) + (int64_t)((n + OVERHEAD) * 8000.0 / rate_mbit);
    struct frame *f = &p->queue[p->tail];
    f->due_ns = p->free_ns + (int64_t)(delay_us * 1000);
    f->n = n;
    memcpy(f->data, data, (size_t)n);
    p->tail = next;
}

static void forward(int32_t from, const uint8_t *data, int32_t n)
{
    int64_t now = now_ns();
    int32_t to = -1;
    memcpy(ports[from].mac, data + 6, 6);
    ports[from].known = true;
    for (int32_t i = 0; i < n_ports && !(data[0] & 1); i++)
        if (ports[i].known && !memcmp(ports[i].mac, data, 6)) to = i;
    for (int32_t i = 0; i < n_ports; i++)
        if (i != from && (to < 0 || i == to)) take(&ports[i], data, n, now);
}

/* Give out what is due. When the next one is. */
static int64_t give(int64_t now)
{
    int64_t next = INT64_MAX;
    for (int32_t i = 0; i < n_ports; i++) {
        struct port *p = &ports[i];
        for (; p->head != p->tail && p->queue[p->head].due_ns <= now; p->head = (p->head + 1) % QUEUE) {
            struct frame *f = &p->queue[p->head];
            if (!p->cut && write(p->fd, f->data, (size_t)f->n) < 0) continue; /* a full device drops, as wires do */
        }
        if (p->head != p->tail && p->queue[p->head].due_ns < next) next = p->queue[p->head].due_ns;
    }
    return next;
}

static bool collect(void)
{
    static uint8_t data[FRAME];
    bool any = false;
    for (int32_t i = 0; i < n_ports; i++)
        for (int32_t k = 0; k < BATCH; k++) {
            ssize_t n = read(ports[i].fd, data, sizeof data);
            if (n < 14) break;
            any = true;
            if (!ports[i].cut) forward(i, data, (int32_t)n);
        }
    return any;
}

/* False: leave. */
static bool command(void)
{
    char line[128];
    int port;
    ssize_t n = read(STDIN_FILENO, line, sizeof line - 1);
    if (n <= 0) return false;
    line[n] = 0;
    if (sscanf(line, "cut %d", &port) == 1 && port >= 0 && port < n_ports) ports[port].cut = true;
    else if (sscanf(line, "join %d", &port) == 1 && port >= 0 && port < n_ports) ports[port].cut = false;
    else if (sscanf(line, "rate %lf", &rate_mbit) != 1) (void)!sscanf(line, "delay %lf", &delay_us);
    return strncmp(line, "quit", 4) != 0;
}

/* Sleep until something comes or the next frame is due; waits shorter than a wake-up are spun away. */
static bool idle(int64_t next)
{
    struct pollfd f[PORTS + 1];
    int64_t left = next == INT64_MAX ? 1000000000 : next - now_ns() - SPIN_NS;
    if (left <= 0) return true;
    struct timespec t = {left / 1000000000, left % 1000000000};
    for (int32_t i = 0; i < n_ports; i++) f[i] = (struct pollfd){ports[i].fd, POLLIN, 0};
    f[n_ports] = (struct pollfd){STDIN_FILENO, POLLIN, 0};
    if (ppoll(f, (nfds_t)n_ports + 1, &t, NULL) < 0 && errno != EINTR) return false;
    return !f[n_ports].revents || command();
}

int main(int argc, char **argv)
{
    int self = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
    struct sched_param first = {.sched_priority = 1};
    if (argc < 5 || argc - 3 > PORTS || (rate_mbit = atof(argv[1])) <= 0 || (delay_us = atof(argv[2])) < 0) {
        fprintf(stderr, "usage: lan_switch RATE_MBIT DELAY_US NAMESPACE NAMESPACE...\n");
        return 2;
    }
    for (n_ports = 0; n_ports < argc - 3; n_ports++)
        if (!open_port(&ports[n_ports], argv[3 + n_ports], n_ports, self)) {
            fprintf(stderr, "lan_switch: no TAP device in namespace %s: %s\n", argv[3 + n_ports], strerror(errno));
            return 1;
        }
    prctl(PR_SET_TIMERSLACK, 1);
    (void)sched_setscheduler(0, SCHED_FIFO, &first); /* else ranks that spin on every core would starve the wire itself */
    printf("ready\n");
    fflush(stdout);
    for (bool stay = true; stay;) {
        int64_t next = give(now_ns());
        if (!collect()) stay = idle(next);
    }
    return 0;
}

/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The maps. The loader pins each by its name; max_entries marked (loader) are replaced at load. */
#ifndef POLLUX_MAPS_H
#define POLLUX_MAPS_H

/* ifindex → role, XSKMAP slot and more. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, PORT_SLOTS);
	__type(key, __u32);
	__type(value, struct port);
} ports SEC(".maps");

/* slot * QUEUES_PER_PORT + queue → AF_XDP socket. A socket that dies leaves by itself. */
struct {
	__uint(type, BPF_MAP_TYPE_XSKMAP);
	__uint(max_entries, PORT_SLOTS *QUEUES_PER_PORT);
	__type(key, __u32);
	__type(value, __u32);
} xsks SEC(".maps");

/* The gateway's own addresses → LOCAL_INSIDE or 0. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 1024); /* (loader) */
	__type(key, __u8[4]);
	__type(value, __u32);
} local_addrs4 SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 1024); /* (loader) */
	__type(key, __u8[16]);
	__type(value, __u32);
} local_addrs6 SEC(".maps");

/* Inbound SPIs of manual SAs that do not begin with our bits, in host order. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 1024); /* (loader) */
	__type(key, __u32);
	__type(value, __u8);
} spis SEC(".maps");

/*
 * Protected pairs. Each trie gives the class of the longest prefix that covers an address; the set of
 * class pairs, closed by the loader over nested prefixes, says whether the two together are protected.
 */
#define PREFIXES(name, key_type)                                                                             \
	struct {                                                                                             \
		__uint(type, BPF_MAP_TYPE_LPM_TRIE);                                                         \
		__uint(map_flags, BPF_F_NO_PREALLOC);                                                        \
		__uint(max_entries, 1024); /* (loader) */                                                    \
		__type(key, key_type);                                                                       \
		__type(value, __u32);                                                                        \
	} name SEC(".maps")

PREFIXES(local_prefixes4, struct lpm4_key);
PREFIXES(remote_prefixes4, struct lpm4_key);
PREFIXES(local_prefixes6, struct lpm6_key);
PREFIXES(remote_prefixes6, struct lpm6_key);

/*
 * The one live set, exchanged as a whole. The kernel returns from that exchange only when no program
 * works on the old set any more, which is what makes an update of the tries leak-free: see src/protect.rs.
 *
 * Nothing in the set's declaration has a name: of named types behind pointers, clang tells the name alone.
 */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, 1);
	__type(key, __u32);
	__array(
		values, struct {
			__uint(type, BPF_MAP_TYPE_HASH);
			__uint(map_flags, BPF_F_NO_PREALLOC);
			__uint(max_entries, 1); /* each set is made as large as it has to be */
			__uint(key_size, sizeof(struct class_pair));
			__uint(value_size, sizeof(__u8));
		});
} pairs SEC(".maps");

/* Sockets of the gateway, by cookie, which the kernel never gives twice. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 4096);
	__type(key, __u64);
	__type(value, struct guard_socket);
} guard_sockets SEC(".maps");

/*
 * ifindex of the kernel's end of pollux0: what comes from there is a worker's, what goes there stays here.
 * The entry 0 says that no address of the gateway is known yet.
 */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 4);
	__type(key, __u32);
	__type(value, __u8);
} host_links SEC(".maps");

/* layer * GUARD_VERDICT_COUNT + verdict → packets. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, LAYER_COUNT *GUARD_VERDICT_COUNT);
	__type(key, __u32);
	__type(value, __u64);
} guard_counts SEC(".maps");

/* role * VERDICT_COUNT + verdict → frames. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, ROLE_COUNT *VERDICT_COUNT);
	__type(key, __u32);
	__type(value, __u64);
} verdicts SEC(".maps");

#endif

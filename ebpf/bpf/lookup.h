/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Whether a pair of addresses is protected: the same answer at the entrance (XDP) and at the exit (guard). */
#ifndef POLLUX_LOOKUP_H
#define POLLUX_LOOKUP_H

static __always_inline const __u32 *class4(void *trie, const __u8 *address)
{
	struct lpm4_key key = {.prefix_len = 32};

	__builtin_memcpy(key.address, address, sizeof(key.address));
	return bpf_map_lookup_elem(trie, &key);
}

static __always_inline const __u32 *class6(void *trie, const __u8 *address)
{
	struct lpm6_key key = {.prefix_len = 128};

	__builtin_memcpy(key.address, address, sizeof(key.address));
	return bpf_map_lookup_elem(trie, &key);
}

static __always_inline const __u32 *local_class(bool ipv6, const __u8 *address)
{
	return ipv6 ? class6(&local_prefixes6, address) : class4(&local_prefixes4, address);
}

static __always_inline const __u32 *remote_class(bool ipv6, const __u8 *address)
{
	return ipv6 ? class6(&remote_prefixes6, address) : class4(&remote_prefixes4, address);
}

/*
 * The class of the remote prefix where the pair is protected, 0 (which is no class) where it is not.
 *
 * The set is fetched before the classes: the loader's order of updates counts on it.
 */
static __always_inline __u32 protected_by(bool ipv6, const __u8 *local, const __u8 *remote)
{
	__u32 zero = 0;
	void *set = bpf_map_lookup_elem(&pairs, &zero);
	if (!set)
		return 0;

	const __u32 *l = local_class(ipv6, local);
	if (!l)
		return 0;
	const __u32 *r = remote_class(ipv6, remote);
	if (!r)
		return 0;
	struct class_pair key = {.local = *l, .remote = *r};
	return bpf_map_lookup_elem(set, &key) ? key.remote : 0;
}

#endif

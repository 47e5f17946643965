/* Intel's library, reached by its own macros: the manager's layout is known to its header only. */
#include <intel-ipsec-mb.h>

/* arch: 0 SSE (AES-NI), 1 AVX-512, 2 AVX2. Returns NULL where the library says that the CPU cannot. */
IMB_MGR *pollux_imb_new(int arch)
{
	IMB_MGR *mgr = alloc_mb_mgr(0);

	if (mgr == NULL)
		return NULL;
	if (arch == 0)
		init_mb_mgr_sse(mgr);
	else if (arch == 2)
		init_mb_mgr_avx2(mgr);
	else
		init_mb_mgr_avx512(mgr);
	return imb_get_errno(mgr) == 0 ? mgr : NULL;
}

size_t pollux_imb_key_size(void)
{
	return sizeof(struct gcm_key_data);
}

void pollux_imb_gcm_pre(const IMB_MGR *mgr, const void *key, size_t key_len, struct gcm_key_data *out)
{
	if (key_len == 16)
		IMB_AES128_GCM_PRE(mgr, key, out);
	else
		IMB_AES256_GCM_PRE(mgr, key, out);
}

/* The direct call: dir 0 seals, 1 opens. */
aes_gcm_enc_dec_t pollux_imb_gcm(const IMB_MGR *mgr, size_t key_len, int dir)
{
	if (key_len == 16)
		return dir == 0 ? mgr->gcm128_enc : mgr->gcm128_dec;
	return dir == 0 ? mgr->gcm256_enc : mgr->gcm256_dec;
}

void pollux_imb_chacha(const IMB_MGR *mgr, int dir, const void *key, const void *nonce, const void *aad,
		       size_t aad_len, void *text, size_t len, void *tag)
{
	struct chacha20_poly1305_context_data ctx;

	IMB_CHACHA20_POLY1305_INIT(mgr, key, &ctx, nonce, aad, aad_len);
	if (dir == 0) {
		IMB_CHACHA20_POLY1305_ENC_UPDATE(mgr, key, &ctx, text, text, len);
		IMB_CHACHA20_POLY1305_ENC_FINALIZE(mgr, &ctx, tag, 16);
	} else {
		IMB_CHACHA20_POLY1305_DEC_UPDATE(mgr, key, &ctx, text, text, len);
		IMB_CHACHA20_POLY1305_DEC_FINALIZE(mgr, &ctx, tag, 16);
	}
}

//! The secrets file: keys of manual SAs and pre-shared keys, by name.
//!
//! ```toml
//! [keys]                            # key, then salt, as `ip xfrm` takes them for rfc4106(gcm(aes))
//! to-b = "0x000102030405060708090a0b0c0d0e0f10111213"
//!
//! [psk]
//! office = "0x6a7f…"                # text, 0x and hexadecimal, or 0s and base64, as in swanctl.conf
//!
//! [psk.phones]                      # found by identity where the connection names no key
//! ids = ["*.phones.example"]
//! secret = "0x…"
//! ```

use std::collections::BTreeMap;
use std::fmt;
use std::io::Read;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use pollux_abi::KeyMaterial;
use sha2::{Digest, Sha256};
use toml::de::{DeTable, DeValue};
use zeroize::Zeroizing;

use crate::document::{Report, Section};
use crate::model::{Config, Connection};
use crate::problem::Problems;
use crate::values::{self, Wrong, closest, hex, some};

/// A pre-shared key and whose it is.
pub struct Psk {
    /// Identities that it belongs to, as swanctl writes them; empty where only a connection names it.
    pub ids: Vec<String>,
    /// Its octets.
    pub secret: Zeroizing<Vec<u8>>,
}

/// All secrets, by name. Wiped when dropped.
#[derive(Default)]
pub struct Secrets {
    keys: BTreeMap<String, Zeroizing<Vec<u8>>>,
    /// Digests of the keys, for the time when they are forgotten.
    digests: BTreeMap<String, [u8; 32]>,
    is_forgotten: bool,
    psks: BTreeMap<String, Psk>,
    warnings: Vec<crate::Problem>,
}

impl Secrets {
    /// A copy of the key of a manual SA; `None` for an unknown name.
    pub fn key(&self, name: &str) -> Option<Box<KeyMaterial>> {
        KeyMaterial::boxed(self.keys.get(name)?)
    }

    /// Wipes the keys of manual SAs. Digests of them stay.
    pub fn forget_keys(&mut self) {
        for (name, octets) in core::mem::take(&mut self.keys) {
            self.digests.insert(name, digest(&octets));
        }
        self.is_forgotten = true;
    }

    /// Reads the keys of manual SAs again, where they were forgotten. One that is another now is not taken: that is a
    /// change of the configuration, which the operator has to ask for.
    ///
    /// # Errors
    /// What is wrong with the file; the keys are still forgotten then.
    pub fn recall_keys(&mut self, config: &Config) -> Result<(), Problems> {
        if !self.is_forgotten {
            return Ok(());
        }
        let mut keys = load(config)?.keys;
        keys.retain(|name, octets| self.digests.get(name) == Some(&digest(octets)));
        self.keys = keys;
        self.is_forgotten = false;
        Ok(())
    }

    /// A pre-shared key by name.
    pub fn psk(&self, name: &str) -> Option<&Psk> {
        self.psks.get(name)
    }

    /// What is legal in the file and seldom meant.
    pub fn warnings(&self) -> &[crate::Problem] {
        &self.warnings
    }

    /// All pre-shared keys, by name.
    pub fn psks(&self) -> impl Iterator<Item = (&str, &Psk)> {
        self.psks.iter().map(|(name, psk)| (name.as_str(), psk))
    }
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Secrets")
            .field("keys", &self.keys.keys())
            .field("psks", &self.psks.keys())
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Psk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Psk").field("ids", &self.ids).field("secret", &"[redacted]").finish()
    }
}

fn digest(octets: &[u8]) -> [u8; 32] {
    Sha256::digest(octets).into()
}

/// Reads the secrets file of `config`, and holds the configuration's names against it.
pub(crate) fn load(config: &Config) -> Result<Secrets, Problems> {
    let Some(file) = &config.paths.secrets else {
        return parse(config, &config.file, "").map_err(|mut problems| {
            problems.0.push(crate::Problem {
                file: config.file.clone(),
                line: 0,
                key: "paths.secrets".to_owned(),
                reason: "is missing, and keys are named".to_owned(),
                fix: "write secrets = \"secrets.toml\" under [paths], and make the file with mode 600"
                    .to_owned(),
            });
            problems
        });
    };
    let text = read_private(file)?;
    parse(config, file, &text)
}

/// The text of a file that is ours alone. Owner and mode are those of the file that was opened.
fn read_private(path: &Path) -> Result<Zeroizing<String>, Problems> {
    let fail = |reason: String, fix: &str| Problems::of_file(path, reason, fix);
    // Without O_NONBLOCK a FIFO would wait for somebody who writes.
    let nonblocking = nix::fcntl::OFlag::O_NONBLOCK.bits();
    let opened = std::fs::OpenOptions::new().read(true).custom_flags(nonblocking).open(path);
    let mut file = opened.map_err(|error| {
        fail(format!("can't be read: {error}"), "make the file with mode 600, or fix `secrets` under [paths]")
    })?;
    let about =
        file.metadata().map_err(|error| fail(format!("can't be read: {error}"), "use a regular file"))?;
    if !about.is_file() {
        return Err(fail(
            "is no regular file (a folder, a FIFO or a device)".to_owned(),
            "name a file with mode 600; <(…) of a shell is a FIFO",
        ));
    }
    let mode = about.mode() & 0o777;
    if mode & 0o077 != 0 {
        let fix = format!("chmod 600 {}", path.display());
        return Err(fail(format!("others can read or write it (mode {mode:o})"), &fix));
    }
    let us = nix::unistd::geteuid().as_raw();
    if about.uid() != us && about.uid() != 0 {
        let fix = format!("chown {us} {}", path.display());
        return Err(fail(format!("belongs to user {}, not to us (user {us})", about.uid()), &fix));
    }
    let mut octets = Zeroizing::new(Vec::with_capacity(usize::try_from(about.len()).unwrap_or(0) + 1));
    file.read_to_end(&mut octets)
        .map_err(|error| fail(format!("can't be read: {error}"), "read the file by hand"))?;
    let text =
        core::str::from_utf8(&octets).map_err(|error| crate::not_utf8(path, &octets, error.valid_up_to()))?;
    Ok(Zeroizing::new(text.to_owned()))
}

fn parse(config: &Config, file: &Path, text: &str) -> Result<Secrets, Problems> {
    let report = Report::new(file, text);
    let (document, errors) = DeTable::parse_recoverable(text);
    report.add_syntax(&errors);
    let mut secrets = Secrets::default();
    let mut unmatched = Vec::new();
    if errors.is_empty() {
        let root = Section::root(&report, document.get_ref());
        keys(&root, &mut secrets);
        psks(&root, &mut secrets);
        root.finish();
        unmatched = match_names(config, &secrets, &report);
    }
    secrets.warnings = report.take_warnings();
    let mut problems = report.into_problems();
    problems.0.extend(unmatched);
    if problems.0.is_empty() { Ok(secrets) } else { Err(problems) }
}

fn keys(root: &Section<'_, '_>, secrets: &mut Secrets) {
    let Some(section) = root.section("keys") else { return };
    // By digest, so that no second copy of a key lies about.
    let mut seen = BTreeMap::new();
    for (name, value) in section.entries() {
        match material(value) {
            Ok(octets) => {
                if let Some(other) = seen.insert(digest(&octets), name) {
                    section.wrong(
                        name,
                        format!("is the same key as `{other}`"),
                        "draw a key for each SA: one key under two SAs breaks AES-GCM",
                    );
                }
                secrets.keys.insert(name.to_owned(), octets);
            }
            Err(wrong) => section.wrong(name, wrong.reason, wrong.fix),
        }
    }
}

/// A key in hexadecimal. No message shows any of it.
fn material(value: &DeValue<'_>) -> Result<Zeroizing<Vec<u8>>, Wrong> {
    const FIX: &str = "write \"0x\" and an even number of hexadecimal digits: the key, then the salt (40 digits for aes128gcm16)";
    let written = value.as_str().ok_or_else(|| Wrong::new("is not text", FIX))?;
    // As long as it can become from the start: a string that grows leaves its beginnings in memory.
    let mut compact = Zeroizing::new(String::with_capacity(written.len()));
    compact.extend(written.chars().filter(|character| ![' ', ':', '_'].contains(character)));
    let octets = hex(&compact).ok_or_else(|| Wrong::new("is not hexadecimal", FIX))?;
    if octets.iter().all(|&octet| octet == octets[0]) {
        return Err(Wrong::new("is no key but one octet over and over", "draw one: openssl rand -hex 20"));
    }
    if octets.len() > pollux_abi::key::MATERIAL_MAX {
        return Err(Wrong::new(format!("has {} octets, more than any suite takes", octets.len()), FIX));
    }
    Ok(octets)
}

fn psks(root: &Section<'_, '_>, secrets: &mut Secrets) {
    let Some(section) = root.section("psk") else { return };
    for (name, value) in section.entries() {
        if value.is_table() {
            continue;
        }
        match shared(value) {
            Ok(secret) => {
                warn_of_edges(&section, name, value);
                secrets.psks.insert(name.to_owned(), Psk { ids: Vec::new(), secret });
            }
            Err(wrong) => section.wrong(name, wrong.reason, wrong.fix),
        }
    }
    for (name, entry) in section.named_tables() {
        let ids = entry.or("ids", Vec::new(), some(values::identity::pattern));
        let secret = entry.required("secret", "write secret = \"0x…\"", |value| {
            warn_of_edges(&entry, "secret", value);
            shared(value)
        });
        entry.finish();
        if let Some(secret) = secret {
            secrets.psks.insert(name, Psk { ids, secret });
        }
    }
}

/// Blanks and line breaks at the ends of a key as text count, here and in swanctl, and can't be seen; as does an
/// upper-case 0X or 0S, which is text.
fn warn_of_edges(section: &Section<'_, '_>, key: &str, value: &DeValue<'_>) {
    let Some(written) = value.as_str() else { return };
    let edges = [written.chars().next(), written.chars().next_back()];
    if edges.into_iter().flatten().any(|edge| edge.is_whitespace() || edge.is_control()) {
        section.warn(
            key,
            "begins or ends with a blank or a line break, which is a part of the key",
            "take it out, or write the key's octets as 0x and hexadecimal if it is meant",
        );
    } else if written.starts_with("0X") || written.starts_with("0S") {
        section.warn(
            key,
            format!("begins with {} and is taken as text, letter by letter", &written[..2]),
            "write 0x before hexadecimal and 0s before base64, in lower case",
        );
    }
}

/// A pre-shared key: text, `0x` and hexadecimal, or `0s` and base64.
fn shared(value: &DeValue<'_>) -> Result<Zeroizing<Vec<u8>>, Wrong> {
    let written =
        value.as_str().ok_or_else(|| Wrong::new("is not text", "put the secret in double quotes"))?;
    let octets = if written.starts_with("0x") {
        hex(written).ok_or_else(|| {
            Wrong::new(
                "begins with 0x and is not hexadecimal",
                "write pairs of digits 0-9 a-f; a text that begins so is written as 0s and its base64",
            )
        })?
    } else if let Some(encoded) = written.strip_prefix("0s") {
        base64(encoded).ok_or_else(|| {
            Wrong::new(
                "begins with 0s and is not base64",
                "write 0s and base64; a text that begins so is written as 0x and its octets in hexadecimal",
            )
        })?
    } else {
        Zeroizing::new(written.as_bytes().to_vec())
    };
    if octets.len() < PSK_LEN_MIN {
        return Err(Wrong::new(
            format!("has {} octets; a recorded handshake can be searched for one so short", octets.len()),
            "draw one: openssl rand -hex 32, and write 0x before it",
        ));
    }
    Ok(octets)
}

/// Base64 (RFC 4648 §4), padding optional.
fn base64(encoded: &str) -> Option<Zeroizing<Vec<u8>>> {
    let digits = encoded.trim_end_matches('=').as_bytes();
    let mut octets = Zeroizing::new(Vec::with_capacity(digits.len() * 3 / 4));
    for group in digits.chunks(4) {
        let mut bits = 0_u32;
        for &digit in group {
            let value = match digit {
                b'A'..=b'Z' => digit - b'A',
                b'a'..=b'z' => digit - b'a' + 26,
                b'0'..=b'9' => digit - b'0' + 52,
                b'+' => 62,
                b'/' => 63,
                _ => return None,
            };
            bits = bits << 6 | u32::from(value);
        }
        let count = match group.len() {
            4 => 3,
            3 => 2,
            2 => 1,
            _ => return None,
        };
        bits <<= 6 * (4 - group.len());
        octets.extend_from_slice(&bits.to_be_bytes()[1..=count]);
    }
    Some(octets)
}

/// Names that the configuration uses and the secrets file lacks, and keys of the wrong length.
fn match_names(config: &Config, secrets: &Secrets, report: &Report) -> Vec<crate::Problem> {
    let mut problems = Vec::new();
    let mut add = |line, key: String, reason, fix| {
        problems.push(crate::Problem { file: config.file.clone(), line, key, reason, fix });
    };
    match_keys(config, secrets, report, &mut add);
    match_psks(config, secrets, report, &mut add);
    problems
}

/// Takes a mistake: line, key, reason and fix.
type Add<'a> = &'a mut dyn FnMut(u32, String, String, String);

fn match_keys(config: &Config, secrets: &Secrets, report: &Report, add: Add<'_>) {
    let names: Vec<&str> = secrets.keys.keys().map(String::as_str).collect();
    for sa in &config.sas {
        let Some(octets) = secrets.keys.get(&sa.key) else {
            if report.has_problem_about(&format!("keys.{}", sa.key)) {
                continue;
            }
            let fix = match closest(&sa.key, &names) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("add {} = \"0x…\" under [keys]", sa.key),
            };
            add(
                sa.line,
                format!("sa.{}.key", sa.name),
                format!("no key `{}` in the secrets file", sa.key),
                fix,
            );
            continue;
        };
        let needed = sa.suite.material_len();
        if octets.len() != needed {
            let parts = match (sa.suite.salt_len(), sa.suite.auth_key_len()) {
                (0, 0) => String::new(),
                (salt, 0) => format!(" ({} of key, {salt} of salt)", sa.suite.key_len()),
                (_, auth) => format!(" ({} of cipher key, {auth} of integrity key)", sa.suite.key_len()),
            };
            add(
                sa.line,
                format!("sa.{}.key", sa.name),
                format!(
                    "key `{}` has {} octets, and {} takes {needed}{parts}",
                    sa.key,
                    octets.len(),
                    sa.suite
                ),
                format!("draw one: openssl rand -hex {needed}"),
            );
        }
    }
}

fn match_psks(config: &Config, secrets: &Secrets, report: &Report, add: Add<'_>) {
    let names: Vec<&str> = secrets.psks.keys().map(String::as_str).collect();
    // A secret that could not be read is a mistake of its own, and might have been the one.
    let without = |connection: &&Connection| connection.psk.is_none() && !report.has_problem_below("psk.");
    for connection in config.connections.iter().filter(without) {
        if !secrets.psks.values().any(|psk| may_be_of(psk, connection)) {
            let remote = connection.remote.id.as_deref().unwrap_or("%any");
            add(
                connection.line,
                format!("connection.{}.psk", connection.name),
                format!("is missing, and no secret has ids that fit {remote}, so no peer can authenticate"),
                match names.first() {
                    Some(name) => format!("write psk = \"{name}\", or give a secret ids = [\"{remote}\"]"),
                    None => "add a secret under [psk] and name it here".to_owned(),
                },
            );
        }
    }
    for connection in &config.connections {
        let Some(name) = connection.psk.as_deref().filter(|name| !secrets.psks.contains_key(*name)) else {
            continue;
        };
        if report.has_problem_about(&format!("psk.{name}")) {
            continue;
        }
        let fix = match closest(name, &names) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("add {name} = \"0x…\" under [psk]"),
        };
        let key = format!("connection.{}.psk", connection.name);
        add(connection.line, key, format!("no pre-shared key `{name}` in the secrets file"), fix);
    }
}

/// Whether a secret that is found by identity may be found for a connection: by the peer's identity, or as the only
/// owner by ours. What cannot be known here, an address for example, may fit.
fn may_be_of(psk: &Psk, connection: &Connection) -> bool {
    let remote = connection.remote.id.as_deref().unwrap_or("%any");
    let of_peer = psk.ids.iter().any(|id| may_meet(id, remote));
    let of_us = match (psk.ids.as_slice(), &connection.local.id) {
        ([only], Some(ours)) => may_meet(only, ours),
        ([only], None) => matches!(only.as_str(), "%any" | "*") || is_address(only),
        _ => false,
    };
    of_peer || of_us
}

fn is_address(id: &str) -> bool {
    bare(id).parse::<std::net::IpAddr>().is_ok()
}

/// An identity without what names its type.
fn bare(id: &str) -> &str {
    let value = id.split_once(':').filter(|(kind, _)| kind.chars().all(|c| c.is_ascii_alphanumeric()));
    // An IPv6 address has colons too.
    let value = match value {
        Some((_, value)) if id.parse::<std::net::IpAddr>().is_err() => value,
        _ => id,
    };
    value.trim_start_matches('@')
}

/// Whether two identities or patterns may be about the same peer; types are not compared.
fn may_meet(one: &str, other: &str) -> bool {
    let any = |id: &str| matches!(id, "%any" | "*");
    if any(one) || any(other) {
        return true;
    }
    let (one, other) = (bare(one).to_ascii_lowercase(), bare(other).to_ascii_lowercase());
    match (one.strip_prefix('*'), other.strip_prefix('*')) {
        (Some(one), Some(other)) => one.ends_with(other) || other.ends_with(one),
        (Some(suffix), None) => other.ends_with(suffix),
        (None, Some(suffix)) => one.ends_with(suffix),
        (None, None) => one == other || is_address(&one) && one.parse::<std::net::IpAddr>() == other.parse(),
    }
}

/// 128 bits, if they are random.
const PSK_LEN_MIN: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_follows_the_vectors_of_rfc_4648() {
        for (encoded, plain) in [
            ("", ""),
            ("Zg==", "f"),
            ("Zm8=", "fo"),
            ("Zm9v", "foo"),
            ("Zm9vYg", "foob"),
            ("Zm9vYmE=", "fooba"),
            ("Zm9vYmFy", "foobar"),
        ] {
            assert_eq!(base64(encoded).as_deref().map(Vec::as_slice), Some(plain.as_bytes()));
        }
        assert_eq!(base64("Z"), None);
        assert_eq!(base64("Zm9*"), None);
    }

    #[test]
    fn secrets_are_never_printed() {
        let mut secrets = Secrets::default();
        secrets.keys.insert("a".into(), Zeroizing::new(b"hush".to_vec()));
        secrets.psks.insert("b".into(), Psk { ids: vec![], secret: Zeroizing::new(b"hush".to_vec()) });
        let shown = format!("{secrets:?} {:?}", secrets.psk("b"));
        assert!(!shown.contains("hush") && !shown.contains("104"), "{shown}");
    }
}

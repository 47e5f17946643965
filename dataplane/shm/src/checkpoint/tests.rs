use std::os::unix::fs::{FileExt, PermissionsExt};

use super::*;

/// A file name of its own for each test, removed at the end.
struct Name(PathBuf);

impl Name {
    fn new(name: &str) -> Self {
        Self(std::env::temp_dir().join(format!("pollux-counters-{}-{name}", std::process::id())))
    }

    fn patch(&self, offset: u64, octets: &[u8]) {
        let file = std::fs::OpenOptions::new().write(true).open(&self.0).expect("open");
        file.write_all_at(octets, offset).expect("write");
    }

    fn damage(&self) -> String {
        match CheckpointFile::open(&self.0) {
            Err(error @ CheckpointError::Damaged { .. }) => error.to_string(),
            other => panic!("opened as {other:?}"),
        }
    }
}

/// What the end of a process does to its lock; the mapping itself lives as long as this process.
fn end_of_life(file: &CheckpointFile) {
    rustix::fs::flock(&file.file, FlockOperation::Unlock).expect("unlock");
}

impl Drop for Name {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

#[test]
fn a_new_life_finds_the_slots_and_counters_of_the_old() {
    let name = Name::new("lives");
    let mut file = CheckpointFile::open(&name.0).expect("new file");
    let mode = std::fs::metadata(&name.0).expect("exists").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert_eq!(file.slot_for([1; 32]).expect("room"), 0);
    assert_eq!(file.slot_for([2; 32]).expect("room"), 1);
    assert_eq!(file.slot_for([1; 32]).expect("known"), 0);
    file.checkpoints()[1].reserve(8192);
    file.checkpoints()[1].authenticate(77);
    file.sync().expect("msync");
    assert!(matches!(CheckpointFile::open(&name.0), Err(CheckpointError::InUse { .. })));
    end_of_life(&file);
    let mut file = CheckpointFile::open(&name.0).expect("old file");
    assert_eq!(file.used(), 2);
    assert_eq!(file.slot_for([2; 32]).expect("known"), 1);
    assert_eq!(file.slot_for([3; 32]).expect("room"), 2);
    assert_eq!((file.checkpoints()[1].reserved(), file.checkpoints()[1].authenticated()), (8192, 77));
}

#[test]
fn counters_survive_kill_minus_nine() {
    const CHILD: &str = "POLLUX_TEST_COUNTER_FILE";
    if let Some(path) = std::env::var_os(CHILD) {
        let mut file = CheckpointFile::open(Path::new(&path)).expect("new file");
        let slot = file.slot_for([9; 32]).expect("room");
        file.checkpoints()[slot as usize].reserve(4096);
        rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL)
            .expect("kill");
    }
    let name = Name::new("kill");
    let me = std::env::current_exe().expect("own binary");
    let status = std::process::Command::new(me)
        .args(["--exact", "checkpoint::tests::counters_survive_kill_minus_nine"])
        .env(CHILD, &name.0)
        .stdout(std::process::Stdio::null())
        .status()
        .expect("child");
    assert!(!status.success(), "the child killed itself");
    let mut file = CheckpointFile::open(&name.0).expect("the lock died with its holder");
    let slot = file.slot_for([9; 32]).expect("known");
    assert_eq!(file.used(), 1);
    assert_eq!(file.checkpoints()[slot as usize].reserved(), 4096);
}

#[test]
fn torn_entry_is_a_free_slot_with_counters_at_zero() {
    let name = Name::new("torn");
    let mut file = CheckpointFile::open(&name.0).expect("new file");
    file.slot_for([1; 32]).expect("room");
    end_of_life(&file);
    name.patch(id_at(1) as u64, &[0xee; 20]);
    name.patch((counters_at(CheckpointFile::SLOTS) + 64) as u64, &[0xee; 64]);
    let mut file = CheckpointFile::open(&name.0).expect("torn entry is no damage");
    let slot = file.slot_for([5; 32]).expect("room");
    assert_eq!((slot, file.checkpoints()[1].reserved()), (1, 0));
}

#[test]
fn every_damage_is_named_with_its_mend() {
    let name = Name::new("damage");
    let fill = || {
        let _ = std::fs::remove_file(&name.0);
        let mut file = CheckpointFile::open(&name.0).expect("new file");
        (1..4).for_each(|id| assert!(file.slot_for([id; 32]).is_ok()));
        end_of_life(&file);
    };
    fill();
    name.patch(0, b"#!/bin/sh");
    assert!(name.damage().contains("it begins with") && name.damage().contains("move it away"));
    fill();
    name.patch(8, &[0xff; 8]);
    assert!(name.damage().contains("slots"));
    fill();
    name.patch(8, &9_u64.to_le_bytes());
    assert!(name.damage().contains("9 slots need"));
    fill();
    name.patch(id_at(1) as u64, &[7]);
    assert!(name.damage().contains("slot 1 does not match its check sum"));
    fill();
    name.patch((id_at(1) + 32) as u64, &[0; 8]);
    assert!(name.damage().contains("slot 2 is used though slot 1"));
    fill();
    name.patch(id_at(2) as u64, &[1; 32]);
    name.patch((id_at(2) + 32) as u64, &seal(&[1; 32]).to_le_bytes());
    assert!(name.damage().contains("slots 0 and 2 have the same id"));
    for octets in [&[0; 64][..], &[0xff; 16]] {
        fill();
        name.patch((counters_at(CheckpointFile::SLOTS) + 64) as u64, octets);
        assert!(name.damage().contains("the counters in slot 1 do not match"));
    }
    std::fs::write(&name.0, b"x").expect("write");
    assert!(name.damage().contains("shorter than its header"));
}

#[test]
fn file_that_others_can_write_is_refused() {
    let name = Name::new("mode");
    end_of_life(&CheckpointFile::open(&name.0).expect("new file"));
    std::fs::set_permissions(&name.0, std::fs::Permissions::from_mode(0o666)).expect("chmod");
    assert!(matches!(CheckpointFile::open(&name.0), Err(CheckpointError::Exposed { mode: 0o666, .. })));
}

#[test]
fn every_block_of_the_file_is_allocated_in_an_old_sparse_one_too() {
    use std::os::unix::fs::MetadataExt;
    let name = Name::new("blocks");
    let is_allocated = || {
        let about = std::fs::metadata(&name.0).expect("exists");
        assert_eq!(about.len(), file_len(CheckpointFile::SLOTS) as u64);
        about.blocks() * 512 >= about.len()
    };
    end_of_life(&CheckpointFile::open(&name.0).expect("new file"));
    assert!(is_allocated());
    let header = std::fs::read(&name.0).expect("its text")[..HEADER_LEN].to_vec();
    std::fs::write(&name.0, &header).expect("shorter");
    let file = std::fs::OpenOptions::new().write(true).open(&name.0).expect("open");
    file.set_len(file_len(CheckpointFile::SLOTS) as u64).expect("sparse");
    assert!(!is_allocated());
    end_of_life(&CheckpointFile::open(&name.0).expect("a sparse file is taken"));
    assert!(is_allocated());
}

#[test]
fn missing_space_is_refused_with_a_line_and_space_that_comes_is_used() {
    if rustix::process::geteuid().as_raw() != 0 {
        eprintln!("SKIP: mounting a small file system needs root");
        return;
    }
    let folder = std::env::temp_dir().join(format!("pollux-counters-{}-full", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder");
    let run = |line: &str| {
        let status = std::process::Command::new("sh").args(["-c", line]).status().expect("sh");
        assert!(status.success(), "{line}");
    };
    run(&format!("mount -t tmpfs -o size=4m none {}", folder.display()));
    let refused = CheckpointFile::open(&folder.join("counters"));
    run(&format!("mount -o remount,size=16m {}", folder.display()));
    let taken = CheckpointFile::open(&folder.join("counters")).map(|file| file.used());
    run(&format!("umount -l {0} && rmdir {0}", folder.display()));
    let line = refused.expect_err("there is no room").to_string();
    assert!(line.contains("needs 8388672 octets") && line.contains("another state_dir"), "{line}");
    assert_eq!(taken.expect("there is room now"), 0);
}

#[test]
fn reservations_are_written_out_when_they_move_and_lateness_is_seen() {
    let name = Name::new("writer");
    let mut file = CheckpointFile::open(&name.0).expect("new file");
    let slot = file.slot_for([1; 32]).expect("room") as usize;
    let checkpoint = &file.checkpoints()[slot];
    checkpoint.begin(1);
    let mut writer = file.writer().expect("a second handle");
    assert_eq!(writer.advance().expect("written"), Advance::default(), "nothing has moved");
    checkpoint.reserve(1 + 3 * Checkpoint::STEP);
    assert_eq!(writer.advance().expect("written"), Advance { written: 1, late: 0 });
    checkpoint.reserve(1 + 5 * Checkpoint::STEP);
    assert_eq!(writer.advance().expect("written"), Advance { written: 1, late: 1 });
    checkpoint.begin(1);
    assert_eq!(writer.advance().expect("written"), Advance { written: 1, late: 0 }, "begun anew");
    assert_eq!(writer.advance().expect("written"), Advance::default());
}

//! Files for a test.
#![allow(dead_code, reason = "not every test uses all of it")]

use std::fs;
use std::path::PathBuf;

/// An empty directory that goes with the value.
pub struct Dir(pub PathBuf);

impl Dir {
    /// The name is one among those of the test program.
    pub fn new(name: &str) -> Dir {
        let dir = std::env::temp_dir().join(format!("hikyaku-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir(&dir).unwrap();
        Dir(dir)
    }

    /// What is there by this name.
    pub fn path(&self, name: &str) -> String {
        self.0.join(name).to_str().unwrap().to_owned()
    }

    /// Writes a file, and says where.
    pub fn write(&self, name: &str, content: &str) -> String {
        let path = self.path(name);
        fs::write(&path, content).unwrap();
        path
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

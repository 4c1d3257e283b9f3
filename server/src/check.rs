//! What must hold for any bytes at the broker's doors: the bodies of fuzz targets.

pub use crate::auth::check::check_users;
pub use crate::config::check::check_config;
pub use crate::import::check::check_import;
pub use crate::store::check::{check_base, check_journal, check_recovery, damaged_base, retained_in_pages};
#[cfg(unix)]
pub use crate::transport::check::{TlsFiles, check_transport};

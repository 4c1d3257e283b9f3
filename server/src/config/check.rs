//! What must hold for any configuration file: the body of a fuzz target.

use super::draft::Draft;
use super::settings::{Endpoint, Place, Problem, Settings, Severity};
use super::{finish, parse};
use std::net::IpAddr;
use std::path::Path;

/// Reads `data` as a configuration file. Panics when reading does, when a problem is said to be where no line is, or when settings
/// come out that nobody may have.
///
/// No name is looked up and no directory included.
pub fn check_config(data: &[u8]) {
    let read = settings(data);
    assert_eq!(format!("{read:?}"), format!("{:?}", settings(data)), "the same file is read otherwise");
    let lines = data.iter().filter(|&&b| b == b'\n').count() as u32 + 1;
    let (settings, problems) = match read {
        Ok(read) => read,
        Err(problems) => {
            assert!(problems.iter().any(|p| p.severity == Severity::Error), "refused for nothing");
            return check_places(&problems, lines);
        }
    };
    check_places(&problems, lines);
    assert!(problems.iter().all(|p| p.severity != Severity::Error), "accepted with errors");
    assert_eq!(settings.listeners.len(), settings.core.listeners.len());
    assert!(settings.core.output_soft_bytes <= settings.core.output_hard_bytes);
    assert!(settings.core.max_packet_size > 0 && settings.core.connect_bytes_max > 0);
    for listener in &settings.listeners {
        assert!(!listener.describe().is_empty());
        if listener.local_only_default {
            let Endpoint::Tcp { addresses } = &listener.endpoint else { panic!("not an address") };
            assert!(addresses.iter().all(|a| a.ip().is_loopback()), "open to others without being asked to");
        }
        // Who is let in without a name was let in by somebody, or is on this machine.
        let asked = listener.security.allow_anonymous == Some(true);
        assert!(!listener.allows_anonymous() || asked || listener.local_only_default);
    }
}

fn settings(data: &[u8]) -> Result<(Settings, Vec<Problem>), Vec<Problem>> {
    let file = Path::new("fuzz.conf");
    let place = Place { file: file.into(), line: 0, column: 0 };
    let mut draft = Draft::new(place.clone());
    // As if another file had included it: it may not include any itself.
    parse::read_content(&mut draft, file, data, Some(&place));
    for door in &mut draft.doors {
        let is_address = |host: &String| host.trim_matches(['[', ']']).parse::<IpAddr>().is_ok();
        door.host = door.host.take().filter(is_address);
    }
    finish(draft, &[])
}

fn check_places(problems: &[Problem], lines: u32) {
    for Problem { at, message, .. } in problems {
        assert!(!message.is_empty());
        assert!(at.as_ref().is_none_or(|at| at.line <= lines), "there is no such line");
    }
}

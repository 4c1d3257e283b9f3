//! How many problems of a file are told.

use super::settings::{Problem, Severity};
use std::path::Path;

/// Counts the problems of a file: a file of a wrong kind has as many as it has lines.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    /// By severity.
    counts: [usize; 3],
}

/// So many of each severity are told.
const TOLD_MAX: usize = 20;
/// A file with more errors is read no further.
const ERRORS_MAX: usize = 1000;
const SEVERITIES: [Severity; 3] = [Severity::Error, Severity::Warning, Severity::Note];

impl Tally {
    /// Counts a problem. Whether it is to be told.
    pub(crate) fn admits(&mut self, severity: Severity) -> bool {
        let count = &mut self.counts[severity as usize];
        *count += 1;
        *count <= TOLD_MAX
    }

    /// Adds a problem, if it is to be told.
    pub(crate) fn tell(&mut self, problem: Problem, problems: &mut Vec<Problem>) {
        if self.admits(problem.severity) {
            problems.push(problem);
        }
    }

    pub(crate) fn has_errors(&self) -> bool {
        self.counts[Severity::Error as usize] > 0
    }

    /// Whether to read on makes no sense.
    pub(crate) fn is_full(&self) -> bool {
        self.counts[Severity::Error as usize] >= ERRORS_MAX
    }

    /// How many are not told.
    pub(crate) fn rest(&self, file: &Path) -> impl Iterator<Item = Problem> {
        let file = file.display().to_string();
        let is_full = self.is_full();
        let counts = SEVERITIES.into_iter().zip(self.counts);
        let untold = counts.filter(|&(_, count)| count > TOLD_MAX);
        untold.map(move |(severity, count)| {
            let more = count - TOLD_MAX;
            let message = match (severity, is_full) {
                (Severity::Error, true) => format!("{file}: and {more} more errors; it was not read further"),
                (Severity::Error, false) => format!("{file}: and {more} more errors"),
                (Severity::Warning, _) => format!("{file}: and {more} more warnings"),
                (Severity::Note, _) => format!("{file}: and {more} more notes"),
            };
            Problem { at: None, severity, message }
        })
    }
}

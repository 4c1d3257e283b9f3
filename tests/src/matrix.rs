//! The matrix of protocol version and number of workers that the cases run in.

/// The protocol level of CONNECT for MQTT 3.1.1.
pub const V311: u8 = 4;
/// The protocol level of CONNECT for MQTT 5.0.
pub const V5: u8 = 5;

/// One cell of the matrix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Setup {
    /// The protocol level the clients use: [`V311`] or [`V5`].
    pub version: u8,
    /// How many worker threads the broker runs.
    pub workers: u8,
}

impl Setup {
    /// The broker's arguments for this cell.
    pub fn broker_args(self) -> [String; 2] {
        ["--workers".into(), self.workers.to_string()]
    }
}

/// Makes one test of each case in each cell: `v311::workers_1::CASE` to `v5::workers_2::CASE`.
///
/// `matrix!(run { both… } { only 5.0… })` calls the macro `run!(CASE, setup)` in the body of each test,
/// two modules below the place where `matrix!` stands.
#[macro_export]
macro_rules! matrix {
    ($run:ident { $($both:ident)* } { $($v5:ident)* }) => {
        mod v311 {
            $crate::matrix!(@cell $run workers_1 V311 1 $($both)*);
            $crate::matrix!(@cell $run workers_2 V311 2 $($both)*);
        }
        mod v5 {
            $crate::matrix!(@cell $run workers_1 V5 1 $($both)* $($v5)*);
            $crate::matrix!(@cell $run workers_2 V5 2 $($both)* $($v5)*);
        }
    };
    (@cell $run:ident $module:ident $version:ident $workers:literal $($case:ident)*) => {
        mod $module {
            $(
                #[test]
                fn $case() {
                    let setup =
                        $crate::matrix::Setup { version: $crate::matrix::$version, workers: $workers };
                    $run!($case, setup);
                }
            )*
        }
    };
}

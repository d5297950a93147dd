//! How a Prefetch does its work, as far as a command line says.

use clap::Args;
use serde_json::{Map, Value};

use crate::human;

/// How the images get to the nodes, and how long they stay.
#[derive(Args, Debug, Default)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "they are flags that have nothing to do with each other"
)]
pub(super) struct PolicyArgs {
    /// Fetch the images once, and be done; default: keep them on the nodes, also on those that join later
    #[arg(long)]
    once: bool,

    /// Look for newer images of the same names this often, such as 15m; 0 is only on `kubectl coral refresh`
    #[arg(long, value_name = "DURATION", value_parser = parse_interval)]
    refresh_interval: Option<String>,

    /// How many of the nodes pull at the same time: a number, or a share such as 25%
    #[arg(long, value_name = "NUMBER", value_parser = parse_parallelism)]
    parallelism: Option<Value>,

    /// Higher goes first, on every node
    #[arg(long, value_name = "NUMBER", allow_negative_numbers = true, value_parser = clap::value_parser!(i32).range(-1_000_000..=1_000_000))]
    priority: Option<i32>,

    /// Protect the images from the kubelet's garbage collector, where the container runtime can
    #[arg(long)]
    pin: bool,

    /// New nodes keep their startup taint until these images are there
    #[arg(long)]
    gate: bool,

    /// Take the images off the nodes when the Prefetch is deleted or no longer names them
    #[arg(long)]
    remove_on_delete: bool,
}

impl PolicyArgs {
    /// The fields of the spec that were said. What was not said is not touched.
    pub(super) fn fields(&self) -> Map<String, Value> {
        let mut fields = Map::new();
        let mut set = |name: &str, value: Option<Value>| fields.extend(value.map(|value| (name.to_owned(), value)));
        set("mode", self.once.then(|| "Once".into()));
        set("pullPolicy", self.refresh_interval.as_ref().map(|_| "Always".into()));
        set("refreshInterval", self.refresh_interval.clone().map(Value::from));
        set("parallelism", self.parallelism.clone());
        set("priority", self.priority.map(Value::from));
        set("pin", self.pin.then_some(true.into()));
        set("gate", self.gate.then_some(true.into()));
        set("removalPolicy", self.remove_on_delete.then(|| "Remove".into()));
        fields
    }
}

fn parse_interval(text: &str) -> Result<String, String> {
    let interval = human::parse_duration(text).map_err(|error| error.to_string())?;
    if interval.is_zero() {
        Ok("0s".to_owned())
    } else if interval.as_secs() < 10 {
        Err("an interval is 10s or longer, or 0".to_owned())
    } else {
        Ok(text.to_owned())
    }
}

fn parse_parallelism(text: &str) -> Result<Value, String> {
    let number = text.strip_suffix('%').unwrap_or(text);
    match (number.parse::<i32>(), text.ends_with('%')) {
        (Ok(1..=100), true) => Ok(text.into()),
        (Ok(number @ 1..), false) => Ok(number.into()),
        _ => Err("write a number of nodes, at least 1, or a share from 1% to 100%".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_what_was_said_is_set() {
        assert_eq!(Value::from(PolicyArgs::default().fields()), json!({}));
        let said = PolicyArgs {
            once: true,
            refresh_interval: Some("15m".to_owned()),
            parallelism: Some(parse_parallelism("3").unwrap()),
            priority: Some(-1),
            pin: true,
            gate: true,
            remove_on_delete: true,
        };
        assert_eq!(
            Value::from(said.fields()),
            json!({"mode": "Once", "pullPolicy": "Always", "refreshInterval": "15m", "parallelism": 3, "priority": -1,
                "pin": true, "gate": true, "removalPolicy": "Remove"})
        );
    }

    #[test]
    fn what_the_schema_refuses_is_refused_at_once() {
        for (text, expected) in [
            ("1", Some(json!(1))),
            ("25%", Some(json!("25%"))),
            ("0", None),
            ("101%", None),
            ("x", None),
        ] {
            assert_eq!(parse_parallelism(text).ok(), expected, "{text}");
        }
        for (text, expected) in [("0", Some("0s")), ("1h", Some("1h")), ("5s", None), ("often", None)] {
            assert_eq!(parse_interval(text).ok().as_deref(), expected, "{text}");
        }
    }
}

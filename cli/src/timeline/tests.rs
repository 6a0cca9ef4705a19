use super::*;
use std::collections::BTreeMap;

/// A run in short: thread 0 makes thread 1, which calls once and exits; then 2 and 3 take turns.
const LOG: &str = "Trapline\n\
s0: story|life|1000\n\
s0: trace|100|Boot|0|4294967295|0|0|\n\
s0: trace|150|Boot|0|4294967295|1|0|\n\
s0: trace|1000|Leave|0|0|0|0|\n\
s0: trace|1100|Enter|0|0|266|0|CreateSpace\n\
s0: trace|1200|Leave|0|0|0|0|\n\
s0: trace|1210|Enter|0|0|277|0|Map\n\
s0: trace|1220|Leave|0|0|0|0|\n\
s0: trace|1230|Enter|0|0|277|0|Map\n\
s0: trace|1240|Leave|0|0|0|0|\n\
s0: trace|1300|Enter|0|0|260|0|Wait\n\
s0: trace|1310|Switch|0|1|0|1|\n\
s0: trace|1320|Leave|0|1|0|0|\n\
s0: trace|1400|Enter|0|1|257|0|Log\n\
hello\n\
s0: trace|1500|Leave|0|1|0|0|\n\
s0: trace|1600|Enter|0|1|262|0|Exit\n\
s0: trace|1610|End|0|1|0|3|\n\
s0: trace|1620|Switch|0|0|1|0|\n\
s0: trace|1630|Leave|0|0|0|0|\n\
s0: trace|1700|Enter|0|0|283|0|Destroy\n\
s0: story||0\n\
s0: story|switch|1000\n\
s0: trace|2000|Leave|0|2|0|0|\n\
s0: trace|7000|Enter|0|2|224|0|\n\
s0: trace|7010|Switch|0|3|2|3|\n\
s0: trace|7020|Leave|0|3|0|0|\n";

fn texts(rows: &[Row], column: Column) -> Vec<&str> {
    rows.iter().filter(|row| row.column == column).map(|row| row.text.as_str()).collect()
}

#[test]
fn the_life_of_a_process_is_told_in_order() {
    let stories = stories(LOG).expect("stories");
    let rows = life(&stories[0]).expect("a life");
    let program = ["run main()", "call system call: trap via Log", "go on"];
    assert_eq!(texts(&rows, Column::Program)[..3], program);
    let os = texts(&rows, Column::Os);
    assert_eq!(os[0], "initialize trap table");
    assert_eq!(os.iter().filter(|text| text.starts_with("load program")).count(), 1);
    assert!(os.last().is_some_and(|text| text.starts_with("free memory")), "{os:?}");
    assert!(rows.is_sorted_by_key(|row| row.time));
}

#[test]
fn a_timer_interrupt_changes_the_process() {
    let stories = stories(LOG).expect("stories");
    let rows = switch(&stories[1]).expect("a switch");
    assert_eq!(texts(&rows, Column::Program), ["process A runs", "process B runs"]);
    assert!(switch(&stories[0]).is_err());
}

#[test]
fn what_begins_ends() {
    let value = export(&stories(LOG).expect("stories"));
    let mut open = BTreeMap::new();
    let mut last = 0.0;
    for event in value["traceEvents"].as_array().expect("a list") {
        let track = (event["pid"].as_u64(), event["tid"].as_u64());
        let name = event["name"].as_str().expect("a name").to_owned();
        match event["ph"].as_str().expect("a phase") {
            "B" => assert_eq!(open.insert(track, name), None),
            "E" => assert_eq!(open.remove(&track), Some(name)),
            _ => continue,
        }
        let time = event["ts"].as_f64().expect("a time");
        assert!(time >= last);
        last = time;
    }
    assert!(open.is_empty(), "{open:?}");
}

#[test]
fn a_fault_is_told_with_its_tag_and_address() {
    let log = "story|faults|1000\ntrace|5|Fault|1|7|16|8192|\nstory||0\n";
    let value = export(&stories(log).expect("stories"));
    let events = value["traceEvents"].as_array().expect("a list");
    let found = events.iter().find(|event| event["ph"] == "i").expect("an instant");
    assert_eq!(found["name"], "Fault of thread 7: 0x10, 0x2000");
    assert_eq!(found["pid"], 1);
}

#[test]
fn nonsense_is_refused() {
    assert!(stories("story|life\n").is_err());
    assert!(stories("story|life|1\ntrace|1|Leave\n").is_err());
    assert!(stories("trace|1|Leave\n").expect("nothing").is_empty());
    let empty = Story { name: "life".into(), rate: 1, events: Vec::new() };
    assert!(life(&empty).is_err() && switch(&empty).is_err());
}

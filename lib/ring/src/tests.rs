use super::*;
use memory::Fake;
use proptest::prelude::*;
use std::collections::VecDeque;

const BASE: u64 = 64;

fn pair(data: u64) -> (Fake, Producer<Fake>, Consumer<Fake>) {
    let memory = Fake::new((BASE + HEADER + data) as usize);
    let producer = Producer::new(memory.clone(), BASE, HEADER + data).expect("ring");
    let consumer = Consumer::new(memory.clone(), BASE, HEADER + data).expect("ring");
    (memory, producer, consumer)
}

#[test]
fn a_ring_outside_its_memory_is_refused() {
    let memory = Fake::new(256);
    assert!(Producer::new(&memory, 0, 257).is_err());
    assert!(Producer::new(&memory, u64::MAX - 3, 256).is_err());
    assert!(Producer::new(&memory, 2, 200).is_err());
    assert!(Consumer::new(&memory, 0, HEADER + 7).is_err());
    assert!(Consumer::new(&memory, 0, 256).is_ok());
}

#[test]
fn the_longest_record_goes_through_and_one_byte_more_does_not() {
    let (_, mut producer, mut consumer) = pair(2 * MAX_RECORD as u64);
    let record: Vec<u8> = (0..MAX_RECORD).map(|i| i as u8).collect();
    let mut into = vec![0; MAX_RECORD];
    for _ in 0..5 {
        assert_eq!(producer.push(&record), Ok(()));
        assert_eq!(consumer.pop(&mut into), Ok(Some(MAX_RECORD)));
        assert_eq!(into, record);
    }
    assert_eq!(producer.push(&vec![0; MAX_RECORD + 1]), Err(Full));
}

#[test]
fn a_full_ring_tells_the_reader_that_the_writer_waits() {
    let (_, mut producer, mut consumer) = pair(64);
    while producer.push(&[7; 12]).is_ok() {}
    assert!(consumer.more_than_half_full());
    let mut into = [0; 12];
    while consumer.pop(&mut into) == Ok(Some(12)) {}
    assert!(consumer.is_empty());
    assert!(consumer.writer_waits());
    assert!(!consumer.writer_waits());
    assert_eq!(producer.push(&[7; 12]), Ok(()));
}

#[test]
fn a_new_end_goes_on_where_the_old_one_stopped() {
    let (memory, mut producer, mut consumer) = pair(64);
    producer.push(b"one").expect("room");
    producer.push(b"two").expect("room");
    let mut into = [0; 8];
    assert_eq!(consumer.pop(&mut into), Ok(Some(3)));
    let mut consumer = Consumer::new(memory.clone(), BASE, HEADER + 64).expect("ring");
    let mut producer = Producer::new(memory, BASE, HEADER + 64).expect("ring");
    producer.push(b"three").expect("room");
    assert_eq!(consumer.pop(&mut into), Ok(Some(3)));
    assert_eq!(&into[..3], b"two");
    assert_eq!(consumer.pop(&mut into), Ok(Some(5)));
    assert_eq!(&into[..5], b"three");
}

#[test]
fn a_record_longer_than_the_buffer_is_skipped_alone() {
    let (_, mut producer, mut consumer) = pair(64);
    producer.push(&[1; 20]).expect("room");
    producer.push(&[2; 4]).expect("room");
    let mut into = [0; 8];
    assert_eq!(consumer.pop(&mut into), Err(Corrupt));
    assert_eq!(consumer.pop(&mut into), Ok(Some(4)));
}

#[derive(Clone, Debug)]
enum Step {
    Push(Vec<u8>),
    Pop,
    Scribble(u64, u32),
}

fn steps(hostile: bool) -> impl Strategy<Value = Vec<Step>> {
    let push = prop::collection::vec(any::<u8>(), 0..40).prop_map(Step::Push);
    let value = prop_oneof![0u32..400, any::<u32>()];
    let scribble = (0u64..80, value).prop_map(|(word, value)| Step::Scribble(word * 4, value));
    let step = prop_oneof![3 => push, 3 => Just(Step::Pop), u32::from(hostile) => scribble];
    prop::collection::vec(step, 0..200)
}

proptest! {
    #[test]
    fn records_come_out_as_they_went_in(size in 2u64..50, steps in steps(false)) {
        let (_, mut producer, mut consumer) = pair(size * 4);
        let mut model: VecDeque<Vec<u8>> = VecDeque::new();
        let mut into = [0; 64];
        for step in steps {
            match step {
                Step::Push(record) => {
                    let fits = producer.fits(record.len());
                    prop_assert_eq!(producer.push(&record).is_ok(), fits);
                    if fits {
                        model.push_back(record);
                    } else {
                        prop_assert!(!model.is_empty() || record.len() > producer.longest());
                    }
                }
                _ => match model.pop_front() {
                    Some(record) => {
                        prop_assert_eq!(consumer.pop(&mut into), Ok(Some(record.len())));
                        prop_assert_eq!(&into[..record.len()], &record[..]);
                    }
                    None => prop_assert_eq!(consumer.pop(&mut into), Ok(None)),
                },
            }
            prop_assert_eq!(consumer.is_empty(), model.is_empty());
        }
    }

    /// The peer may write anything anywhere: nothing panics, nothing outside the ring changes,
    /// and draining ends.
    #[test]
    fn a_hostile_peer_does_no_harm(size in 2u64..50, steps in steps(true)) {
        let (memory, mut producer, mut consumer) = pair(size * 4);
        memory.write(0, &[0xa5; BASE as usize]).expect("inside");
        let mut into = [0; 64];
        for step in steps {
            match step {
                Step::Push(record) => { let _ = producer.push(&record); }
                Step::Pop => { let _ = (consumer.pop(&mut into), consumer.writer_waits()); }
                Step::Scribble(offset, value) => { let _ = memory.store32(BASE + offset, value); }
            }
        }
        let mut turns = 0;
        while consumer.pop(&mut into) != Ok(None) {
            turns += 1;
            prop_assert!(turns <= size + 2);
        }
        let mut guard = [0; BASE as usize];
        memory.read(0, &mut guard).expect("inside");
        prop_assert_eq!(guard, [0xa5; BASE as usize]);
    }
}

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::super::answer::Answer;
use super::super::cache::Cache;
use super::super::question::{Question, Way, lower, read};
use super::super::zones::Side;
use super::*;

fn entry(number: usize, ttl: u32, padding: usize) -> (Question, Arc<Answer>) {
    let query = query(1, &format!("n{number}.corp.internal"), TXT);
    let data = vec![7; padding];
    let message = answer(&query, NOERROR, [&[record(TXT, ttl, &data)], &[], &[]]);
    let answer = Answer::read(&message, &lower(section(&query))).unwrap();
    (read(&query, Way::Stream).unwrap().0, Arc::new(answer))
}

fn at(now: Instant, seconds: f32) -> Instant {
    now + Duration::from_secs_f32(seconds)
}

#[test]
fn an_answer_is_known_until_its_time_is_over() {
    let (now, mut cache) = (Instant::now(), Cache::default());
    let (question, answer) = entry(0, 10, 1);
    cache.put(question.clone(), answer, now);
    let age =
        |cache: &mut Cache, seconds| cache.get(&question, at(now, seconds)).map(|(_, age)| age);
    assert_eq!(age(&mut cache, 0.0), Some(0));
    assert_eq!(age(&mut cache, 9.9), Some(9));
    assert_eq!(age(&mut cache, 10.0), None);
    // A newer one counts.
    let (_, newer) = entry(0, 10, 1);
    cache.put(question.clone(), newer, at(now, 11.0));
    assert_eq!(age(&mut cache, 12.0), Some(1));
}

#[test]
fn what_holds_for_no_time_is_not_kept() {
    let (now, mut cache) = (Instant::now(), Cache::default());
    let (question, answer) = entry(0, 0, 1);
    cache.put(question.clone(), answer, now);
    assert!(cache.get(&question, now).is_none());
    assert_eq!(cache.len(), 0);
}

#[test]
fn what_one_side_has_said_is_forgotten_in_both_generations() {
    let (now, mut cache) = (Instant::now(), Cache::default());
    let sided = |number: usize, side| {
        let (mut question, answer) = entry(number, 1000, 1);
        question.side = side;
        (question, answer)
    };
    for number in 0..10_000 {
        let side = [Side::Far, Side::Near][number % 2];
        let (question, answer) = sided(number, side);
        cache.put(question, answer, now);
    }
    cache.forget(Side::Near);
    assert_eq!(cache.len(), 5000);
    for number in 0..10_000 {
        let found = cache.get(&sided(number, Side::Near).0, now);
        assert!(found.is_none(), "{number}");
        let found = cache.get(&sided(number, Side::Far).0, now);
        assert_eq!(found.is_some(), number % 2 == 0, "{number}");
    }
}

#[test]
fn neither_many_answers_nor_large_ones_are_too_many() {
    let (now, mut cache) = (Instant::now(), Cache::default());
    let (used, answer) = entry(0, 1000, 1);
    cache.put(used.clone(), answer, now);
    for number in 1..40_000 {
        let (question, answer) = entry(number, 1000, 1);
        cache.put(question, answer, now);
        if number % 1000 == 0 {
            assert!(
                cache.get(&used, now).is_some(),
                "what is used stays, {number}"
            );
        }
        assert!(cache.len() <= 16_384);
    }
    assert!(cache.get(&entry(1, 1000, 1).0, now).is_none());
    for number in 0..2000 {
        let (question, answer) = entry(number, 1000, 60_000);
        cache.put(question, answer, now);
        assert!(cache.size() <= 8 << 20);
    }
}

//! Which byte ranges are fetched together.
//!
//! A general store merges ranges whose gap is below a megabyte: for a tenth of the rows that triples the bytes on the
//! wire. Here the bytes read for nothing stay below a sixteenth of those that are wanted.

use std::ops::Range;

/// No gap larger than this is read to save a request.
const LARGEST_GAP_BYTES: u64 = 64 << 10;

/// Gaps together are at most wanted bytes / this.
const WANTED_PER_WASTED: u64 = 16;

/// No merged fetch is larger, unless one range alone is: fetches run side by side, and each is freed as a whole.
const LARGEST_FETCH_BYTES: u64 = 8 << 20;

/// No call to the store asks for more ranges.
const RANGES_PER_CALL: usize = 32;

/// The fetches that cover `ranges`, ascending; smallest gaps are bridged first.
pub(crate) fn merge(ranges: &[Range<u64>]) -> Vec<Range<u64>> {
    let mut sorted: Vec<Range<u64>> = ranges.to_vec();
    sorted.sort_unstable_by_key(|range| (range.start, range.end));
    let wanted: u64 = sorted.iter().map(|range| range.end - range.start).sum();
    let mut gaps: Vec<(u64, usize)> = sorted
        .windows(2)
        .enumerate()
        .map(|(index, pair)| (pair[1].start.saturating_sub(pair[0].end), index))
        .filter(|&(gap, _)| gap <= LARGEST_GAP_BYTES)
        .collect();
    gaps.sort_unstable();
    let mut bridged = vec![false; sorted.len()];
    let mut left = wanted / WANTED_PER_WASTED;
    for (gap, index) in gaps {
        if gap > left {
            break;
        }
        left -= gap;
        bridged[index] = true;
    }
    let mut merged: Vec<Range<u64>> = Vec::new();
    for (index, range) in sorted.into_iter().enumerate() {
        let joins = index > 0 && bridged[index - 1];
        match merged.last_mut() {
            // Overlapping ranges share a fetch whatever its length: nothing is read twice.
            Some(last) if range.start < last.end => last.end = last.end.max(range.end),
            Some(last) if joins && range.end - last.start <= LARGEST_FETCH_BYTES => last.end = range.end,
            _ => merged.push(range),
        }
    }
    merged
}

/// Fetches that go to the store in one call, which saves opening a local file for each.
pub(crate) fn batches(merged: &[Range<u64>]) -> Vec<&[Range<u64>]> {
    let mut batches = vec![];
    let (mut first, mut bytes) = (0, 0);
    for (index, range) in merged.iter().enumerate() {
        let next = range.end - range.start;
        if index > first && (bytes + next > LARGEST_FETCH_BYTES || index - first == RANGES_PER_CALL) {
            batches.push(&merged[first..index]);
            (first, bytes) = (index, 0);
        }
        bytes += next;
    }
    if first < merged.len() {
        batches.push(&merged[first..]);
    }
    batches
}

/// The bytes of `range` within fetches made for [`merge`]d ranges; `None` if a fetch came back short.
pub(crate) fn slice(range: &Range<u64>, merged: &[Range<u64>], fetched: &[bytes::Bytes]) -> Option<bytes::Bytes> {
    let index = merged.partition_point(|fetch| fetch.start <= range.start).checked_sub(1)?;
    let offset = (range.start - merged[index].start) as usize;
    let end = offset + (range.end - range.start) as usize;
    (end <= fetched[index].len()).then(|| fetched[index].slice(offset..end))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_become_one_fetch_up_to_its_largest_size() {
        let pages: Vec<Range<u64>> = (0..100).map(|page| page * 1_000_000..(page + 1) * 1_000_000).collect();
        let merged = merge(&pages);
        assert!(merged.iter().all(|fetch| fetch.end - fetch.start <= LARGEST_FETCH_BYTES));
        assert_eq!(merged.len(), 13);
        assert_eq!(merged.iter().map(|fetch| fetch.end - fetch.start).sum::<u64>(), 100_000_000);
    }

    #[test]
    fn wasted_bytes_stay_below_their_share() {
        // Every tenth page of 5,000 bytes: a megabyte's gap would fetch all of them.
        let pages: Vec<Range<u64>> = (0..100).map(|page| page * 50_000..page * 50_000 + 5_000).collect();
        let read: u64 = merge(&pages).iter().map(|fetch| fetch.end - fetch.start).sum();
        assert!(read <= 500_000 + 500_000 / WANTED_PER_WASTED, "{read}");
    }

    #[test]
    fn overlapping_and_unsorted_ranges_are_read_once() {
        assert_eq!(merge(&[10..20, 0..12, 5..8]), std::slice::from_ref(&(0..20)));
        assert_eq!(merge(&[]), Vec::<Range<u64>>::new());
    }

    #[test]
    fn calls_keep_their_bounds_and_lose_nothing() {
        let ranges: Vec<Range<u64>> = (0..100).map(|n| n * 3_000_000..n * 3_000_000 + 1 + n % 7 * 400_000).collect();
        let calls = batches(&ranges);
        assert_eq!(calls.concat(), ranges);
        for call in calls {
            let bytes: u64 = call.iter().map(|range| range.end - range.start).sum();
            assert!(call.len() <= RANGES_PER_CALL && bytes <= LARGEST_FETCH_BYTES, "{call:?}");
        }
        assert!(batches(&[]).is_empty());
    }

    #[test]
    fn slices_are_the_bytes_asked_for() {
        let file: Vec<u8> = (0..=255).collect();
        let wanted = [200..210, 3..7, 100..120, 121..130];
        let merged = merge(&wanted);
        let fetched: Vec<bytes::Bytes> =
            merged.iter().map(|r| file[r.start as usize..r.end as usize].to_vec().into()).collect();
        for range in wanted {
            let slice = slice(&range, &merged, &fetched).expect("whole");
            assert_eq!(slice.as_ref(), &file[range.start as usize..range.end as usize]);
        }
        assert!(
            slice(&(250..300), &merge(std::slice::from_ref(&(250..300))), &[bytes::Bytes::from_static(&[0; 6])])
                .is_none()
        );
    }
}

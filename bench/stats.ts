/**
 * Medians with their confidence intervals, and random numbers that a seed repeats.
 */
export interface Median {
  readonly median: number
  /** The interval of the median with at least 95 % confidence, from the binomial distribution; of few values, all of them. */
  readonly low: number
  readonly high: number
  readonly count: number
}

export const median = (values: ReadonlyArray<number>): Median => {
  const sorted = Array.from(values).sort((a, b) => a - b)
  const count = sorted.length
  if (count === 0) return { median: Number.NaN, low: Number.NaN, high: Number.NaN, count }
  const rank = lowRank(count)
  return {
    median: (sorted[Math.floor((count - 1) / 2)]! + sorted[Math.ceil((count - 1) / 2)]!) / 2,
    low: sorted[rank]!,
    high: sorted[count - 1 - rank]!,
    count
  }
}

/**
 * As many values may be left out at each end. The median is below the value of rank `k` (from 0) when more than `count - k - 1`
 * of `count` fair coins fall one way; both ends together may do so 5 times in 100.
 */
const lowRank = (count: number): number => {
  let probability = 0.5 ** count
  let below = probability
  let rank = 0
  while (below <= 0.025) {
    rank++
    probability *= (count - rank + 1) / rank
    below += probability
  }
  return Math.max(0, rank - 1)
}

export class Random {
  private state: number

  constructor(seed: number) {
    this.state = seed >>> 0
  }

  /** From 0 to 1, 1 not included (mulberry32). */
  next(): number {
    this.state = (this.state + 0x6d2b79f5) >>> 0
    let t = this.state
    t = Math.imul(t ^ (t >>> 15), t | 1)
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61)
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296
  }

  /** The same in another order. */
  shuffle<A>(items: ReadonlyArray<A>): Array<A> {
    const shuffled = Array.from(items)
    for (let i = shuffled.length - 1; i > 0; i--) {
      const j = Math.floor(this.next() * (i + 1))
      const item = shuffled[i]!
      shuffled[i] = shuffled[j]!
      shuffled[j] = item
    }
    return shuffled
  }
}

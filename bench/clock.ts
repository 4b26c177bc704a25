/**
 * One clock for several processes: milliseconds since the machine started.
 */
export const clock = (): number => Number(process.hrtime.bigint()) / 1e6

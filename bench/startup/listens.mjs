/** Makes a server that says what the process has cost by the time it listens. */
import { createServer } from "node:http"

export const create = () =>
  createServer().on("listening", () => {
    const wall = performance.now()
    const { system, user } = process.cpuUsage()
    process.stdout.write(
      `listens ${JSON.stringify({ cpu: (user + system) / 1000, wall, rss: process.memoryUsage.rss() })}\n`
    )
  })

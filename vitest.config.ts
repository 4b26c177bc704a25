import { defineConfig } from "vitest/config"

// Under this condition the package's own name means src: here, in tsconfig.json and in `npm start`.
const condition = "effect-kms-source"

const shared = {
  testTimeout: 30_000,
  hookTimeout: 30_000,
  // Programs that a test starts inherit it.
  env: { NODE_OPTIONS: `${process.env.NODE_OPTIONS ?? ""} --conditions=${condition}`.trim() }
}

export default defineConfig({
  ssr: { resolve: { conditions: [condition, "node"] } },
  test: {
    projects: [
      {
        extends: true,
        test: {
          ...shared,
          name: "unit",
          include: ["test/**/*.test.ts"],
          exclude: ["test/e2e/**"],
          // By default one core is left alone; what runs here mostly waits.
          maxWorkers: 2,
          sequence: { groupOrder: 1 }
        }
      },
      {
        // Real processes measure real time, in generous bounds: once the unit tests are over.
        extends: true,
        test: {
          ...shared,
          name: "e2e",
          // A program may take seconds to start, and some tests start a dozen.
          testTimeout: 120_000,
          include: ["test/e2e/**/*.test.ts"],
          maxWorkers: 2,
          sequence: { groupOrder: 2 }
        }
      },
      {
        // It keeps both cores busy by itself.
        extends: true,
        test: {
          ...shared,
          name: "chaos",
          include: ["bench/chaos/short.test.ts"],
          maxWorkers: 1,
          sequence: { groupOrder: 3 }
        }
      }
    ]
  }
})

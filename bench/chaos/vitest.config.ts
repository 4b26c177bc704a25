import { defineConfig, type TestProjectInlineConfiguration } from "vitest/config"
import shared from "../../vitest.config.ts"

// The short form of chaos behind HAProxy, which not every machine has: no part of the tests.
const [, e2e] = shared.test!.projects as ReadonlyArray<TestProjectInlineConfiguration>

export default defineConfig({
  ...shared,
  test: { projects: [{ ...e2e!, test: { ...e2e!.test, name: "haproxy", include: ["bench/chaos/haproxy.test.ts"] } }] }
})

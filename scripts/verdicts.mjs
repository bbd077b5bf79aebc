/**
 * A vitest reporter that says at the end what needs a look, a line each: failed tests by name, so that
 * the tail of a long log tells which, and skipped ones with their reason, which the JSON report lacks.
 */
export default class VerdictsReporter {
  onTestRunEnd(modules) {
    for (const module of modules) {
      for (const test of module.children.allTests('failed')) {
        const [error] = test.result().errors
        const reason = String(error?.message ?? 'no reason given').split('\n')[0]
        console.log(
          `failed: ${module.project.name}: ${module.relativeModuleId} > ${test.fullName}: ${reason}`,
        )
      }
      for (const test of module.children.allTests('skipped')) {
        const reason = test.result().note ?? 'no reason given'
        console.log(`skipped: ${module.relativeModuleId} > ${test.fullName}: ${reason}`)
      }
    }
  }
}

/* The file in which the agent keeps the namespaces that are enrolled: one name per line, atomically replaced. */
#ifndef AMBIT_CNI_ENROLLED_H
#define AMBIT_CNI_ENROLLED_H

enum enrolment { NOT_ENROLLED, ENROLLED, UNKNOWN };

/* No such file: nothing is enrolled. Anything else that cannot be read: UNKNOWN, and errno says why. */
enum enrolment enrolment_of(const char *path, const char *namespace);

#endif

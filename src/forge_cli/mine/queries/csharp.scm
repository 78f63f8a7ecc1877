; extensions: .cs .csx
(namespace_declaration name: (_) @name body: (_) @body) @definition.namespace
(class_declaration name: (identifier) @name body: (_)? @body) @definition.class
(interface_declaration name: (identifier) @name body: (_)? @body) @definition.class
(struct_declaration name: (identifier) @name body: (_)? @body) @definition.class
(record_declaration name: (identifier) @name body: (_)? @body) @definition.class
(enum_declaration name: (identifier) @name body: (_)? @body) @definition.class
(delegate_declaration name: (identifier) @name) @definition.type
(method_declaration name: (identifier) @name body: (_)? @body) @definition.method
(constructor_declaration
  name: (identifier) @name (constructor_initializer)? @body body: (_)) @definition.method
(constructor_declaration name: (identifier) @name body: (_) @body) @definition.method
(destructor_declaration "~" @name name: (identifier) @name body: (_) @body) @definition.method
(operator_declaration "operator" @name operator: _ @name body: (_) @body) @definition.method
(conversion_operator_declaration
  "operator" @name type: (_) @name body: (_) @body) @definition.method
(indexer_declaration "this" @name accessors: (_) @body) @definition.method
; A property that computes; one that only stores stays with its class.
(property_declaration name: (identifier) @name value: (arrow_expression_clause) @body)
  @definition.method
(property_declaration
  name: (identifier) @name
  accessors: (accessor_list (accessor_declaration body: (_))) @body) @definition.method
(local_function_statement name: (identifier) @name body: (_) @body) @definition.function

(invocation_expression function: (identifier) @reference.call)
(invocation_expression function: (generic_name . (identifier) @reference.call))
(invocation_expression
  function: (member_access_expression name: (identifier) @reference.call))
(invocation_expression
  function: (member_access_expression name: (generic_name . (identifier) @reference.call)))
(invocation_expression
  function: (conditional_access_expression
    (member_binding_expression name: (identifier) @reference.call)))
(object_creation_expression type: (identifier) @reference.call)
(object_creation_expression type: (generic_name . (identifier) @reference.call))

(using_directive) @import

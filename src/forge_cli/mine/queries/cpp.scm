; extensions: .cc .cpp .cxx .hh .hpp .hxx .ipp .tpp
(function_definition
  declarator: (function_declarator
    declarator: [
      (identifier) (field_identifier) (qualified_identifier) (destructor_name) (operator_name)
    ] @name)
  (field_initializer_list)? @body) @definition.function
(function_definition
  declarator: (pointer_declarator
    declarator: (function_declarator
      declarator: [(identifier) (field_identifier) (qualified_identifier)] @name))) @definition.function
(function_definition
  declarator: (reference_declarator
    (function_declarator
      declarator: [
        (identifier) (field_identifier) (qualified_identifier) (operator_name)
      ] @name))) @definition.function
(class_specifier name: (_) @name body: (_)) @definition.class
(struct_specifier name: (_) @name body: (_)) @definition.class
(union_specifier name: (_) @name body: (_)) @definition.class
(enum_specifier name: (_) @name body: (_)) @definition.class
(namespace_definition name: (_) @name body: (_)) @definition.namespace
(type_definition declarator: (type_identifier) @name) @definition.type

(call_expression function: (identifier) @reference.call)
(call_expression function: (field_expression field: (field_identifier) @reference.call))
(call_expression function: (qualified_identifier name: (identifier) @reference.call))

(preproc_include) @import
